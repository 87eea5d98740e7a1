"""What the kernel counts for each user: a session that uses it up does not keep the worker from starting others.

Each case is tried with ``walls = off``, too, where it succeeds.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import eventually
from walled import NOBODY, Walled, walled

FEW_FILES = ("prlimit", "--nofile=1024:4096", "--", *NOBODY)

APP = """
import array, asyncio, errno, os, resource, signal, socket
from greenroom import App

app = App()
MESSAGES = 200  # of 253 fds, in one socket

def fill():
    '''Have as many fds in flight as the kernel allows. Return the sockets, which keep them there.'''
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept, rights = [], (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [2] * 253))
    while True:
        near, far = socket.socketpair()
        kept += [near, far]
        for _ in range(MESSAGES):
            try:
                near.sendmsg([b"x"], [rights], socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    return kept
                raise

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "fill":
        app.kept = fill()
        open("full", "w").close()
        await asyncio.Event().wait()
"""


async def start(worker: Walled, metadata: str) -> tuple[int, str]:
    """Start a session. Return the status, and why there is none."""
    answer = await worker.ask("POST", "/v1/jobs", json={"metadata": metadata, "timeout": 10})
    return answer.status, "" if answer.status == 201 else answer.text


@pytest.mark.parametrize(("walls", "others_start"), [("require", True), ("off", False)])
async def test_fds_in_flight(tmp_path: Path, walls: str, others_start: bool) -> None:
    app = tmp_path / "agent.py"
    app.write_text(APP)
    options = ("--walls", walls, "--offer-timeout", "5", "--rate-limit", "off")
    async with walled(FEW_FILES, *options, app=app, has_victim=False) as worker:
        assert await start(worker, "fill") == (201, "")
        await eventually((worker.folder / "full").exists, "the kernel refuses another fd")
        told = [await start(worker, "other") for _ in range(6)]  # more than there are idle processes
        assert all([status == 201 for status, _ in told]) == others_start, told
        if others_start:
            await worker.worker.until("/v1/pool", lambda answer: answer.body["idle"] == 2)
        assert not [line for line in worker.worker.lines if "zygote" in line and "lost" in line]
