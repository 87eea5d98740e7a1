"""Workers of these tests: without capabilities, or as another user, in a folder that both can read."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import commands
from server.running_worker import Answer, RunningWorker

__all__ = ["NOBODY", "WITHOUT_CAPABILITIES", "Walled", "outside_sockets", "walled"]

_NO_CAPABILITIES = ("--bounding-set", "-all", "--inh-caps", "-all")
WITHOUT_CAPABILITIES = ("setpriv", *_NO_CAPABILITIES)
NOBODY = (
    *("unshare", "--mount", "--propagation", "private"),
    *(sys.executable, str(Path(__file__).with_name("as_nobody.py"))),
)

_APP = Path(__file__).with_name("attacks.py")


class Walled:
    """A running worker with one session that sleeps, as the target of attacks. ``token`` is empty without one."""

    def __init__(self, worker: RunningWorker, folder: Path, token: str) -> None:
        self.worker = worker
        self.folder = folder
        self.token = token

    async def ask(self, method: str, path: str, **request: Any) -> Answer:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return await self.worker.ask(method, path, headers=headers, **request)

    async def start(self, metadata: Any, **asked: Any) -> dict[str, Any]:
        started = await self.ask("POST", "/v1/jobs", json={"metadata": metadata, "timeout": 30, **asked})
        assert started.status == 201, started
        return dict(started.body)

    async def attack(self, attack: str, target: str) -> str:
        """Run a session that attacks; returns the name of the error that it got, or ``done``."""
        report = await self.run({"attack": attack, "target": target})
        assert report["reason"] == "completed", report
        return str(report["result"])

    async def run(self, metadata: Any) -> dict[str, Any]:
        started = await self.start(metadata)
        shown = await self.ask("GET", f"/v1/jobs/{started['id']}?wait=60")
        return dict(shown.body["report"])


@asynccontextmanager
async def walled(
    user: tuple[str, ...],
    *options: str,
    app: Path = _APP,
    env: dict[str, str] | None = None,
    has_victim: bool = True,
) -> AsyncIterator[Walled]:
    with _folder_for_all() as folder:
        shutil.copy(app, folder / "agent.py")
        spawn: dict[str, Any] = {"cwd": folder, "env": {**os.environ, "HOME": str(folder), **(env or {})}}
        arguments = ("agent.py", "--num-idle-processes", "2", "--flight-recorder-dir", "off", *options)
        async with RunningWorker(*arguments, wrapper=user, **spawn) as worker:
            # Root without capabilities cannot tell this process, which has them, from sessions of another test.
            needs_token = "--token required" in " ".join(options) or user is WITHOUT_CAPABILITIES
            # The socket is asked as the worker's user, which may be another one than this process's.
            token = await asyncio.to_thread(_token_of, await worker.url(), user) if needs_token else ""
            walled_worker = Walled(worker, folder, token)
            if has_victim:
                await walled_worker.start({"sleep": True})
            yield walled_worker


@contextmanager
def outside_sockets() -> Iterator[list[tuple[str, str]]]:
    """Have abstract sockets outside of each worker. Yields the attacks on them, each with the name of its target."""
    name = f"greenroom-test/{secrets.token_hex(8)}"
    with ExitStack() as stack:
        for kind in ("STREAM", "SEQPACKET", "DGRAM"):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, getattr(socket, f"SOCK_{kind}")))
            sock.bind(f"\0{name}/{kind}")
            if kind != "DGRAM":
                sock.listen(16)
        connects = [("connect", f"{name}/{kind}") for kind in ("STREAM", "SEQPACKET", "DGRAM")]
        yield [*connects, ("connect_by_program", f"{name}/STREAM"), ("send", f"{name}/DGRAM")]


def _token_of(url: str, user: tuple[str, ...]) -> str:
    command = [*user, commands.GREENROOM, "token", "--url", url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def _folder_for_all() -> Iterator[Path]:
    """A folder that another user can enter, too: those of pytest are for its own user."""
    with tempfile.TemporaryDirectory(prefix="greenroom-walls-") as name:
        os.chmod(name, 0o777)
        yield Path(name)
