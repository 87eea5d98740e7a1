"""The setting ``walls`` when a wall is missing, an app that takes one away, and forged reports without walls."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from server.running_worker import RunningWorker
from walled import NOBODY, walled

TRAMPLES = """
import ctypes
import os
import platform
import struct

from greenroom import App

app = App()

def close_ruleset():
    for name in os.listdir("/proc/self/fd"):
        try:
            kind = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if "landlock" in kind:
            os.close(int(name))

class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))

def forbid_filters():
    # A filter of the app's own: seccomp(2) gives EPERM from now on.
    number = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    lines = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("<HBBI", *line) for line in lines)
    program, zero = Program(len(lines), code), ctypes.c_ulong(0)
    assert ctypes.CDLL(None).prctl(22, ctypes.c_ulong(2), ctypes.byref(program), zero, zero) == 0

@app.preload
def preload():
    PRELOAD()

@app.prewarm
async def prewarm(proc):
    print("user code runs", flush=True)

@app.entrypoint
async def entrypoint(ctx):
    return "done"
"""


TAKEN_AWAY = [("close_ruleset", "signals"), ("forbid_filters", "limits")]
"""What an app does in preload, and the wall that no process can raise then."""


def _app(folder: Path, text: str) -> Path:
    path = folder / "app.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("method", ["zygote", "spawn"])
async def test_a_worker_that_requires_walls_does_not_start_without_one(method: str, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(TRAMPLES.replace("PRELOAD", "close_ruleset"))
    options = ("--walls", "require", "--start-method", method)
    env = {**os.environ, "LANDLOCK_ABI_LIMIT": "5"}
    async with RunningWorker("agent.py", *options, cwd=tmp_path, env=env) as worker:
        line = await worker.logs("walls is require, but .*")
        assert "signals: Landlock has no scopes before Linux 6.12" in line[0]
        assert "sockets: Landlock has no scopes before Linux 6.12" in line[0]
        assert await worker.ends() == 2
        assert not any("user code runs" in each for each in worker.lines)


@pytest.mark.parametrize(("preload", "wall"), TAKEN_AWAY)
async def test_a_required_wall_that_an_app_takes_away_lets_no_user_code_run(
    preload: str, wall: str, tmp_path: Path
) -> None:
    app = _app(tmp_path, TRAMPLES.replace("PRELOAD", preload))
    async with walled(NOBODY, "--walls", "require", app=app, has_victim=False) as worker:
        await worker.worker.logs(f"no wall for {wall} around this process: ")
        await worker.worker.logs("did not become warm")
        assert not any("user code runs" in each for each in worker.worker.lines)


@pytest.mark.parametrize(("preload", "wall"), TAKEN_AWAY)
async def test_an_optional_wall_that_an_app_takes_away_is_told(preload: str, wall: str, tmp_path: Path) -> None:
    app = _app(tmp_path, TRAMPLES.replace("PRELOAD", preload))
    async with walled(NOBODY, app=app, has_victim=False) as worker:
        await worker.worker.logs(f"no wall for {wall} around this process: ")
        assert (await worker.run({}))["result"] == "done"
