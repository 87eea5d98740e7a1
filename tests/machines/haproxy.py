"""The HAProxy that is installed, with files of a test's own: started, watched by its socket, and ended by its pid."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import DEADLINE

__all__ = ["Haproxy", "Rows", "check", "kept_port", "program"]

Rows = dict[tuple[str, str], dict[str, str]]
"""Figures of HAProxy, by proxy and server (or ``FRONTEND``, ``BACKEND``)."""

HEALTH = ("health", "rise", "fall")

_CONTROL = """\
global
    stats socket {path} mode 600 level admin
    stats timeout 1m
"""


def program() -> str:
    path = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    message = "there is no haproxy on this machine (Debian: apt-get install haproxy)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def kept_port() -> Iterator[int]:
    """Keep a free port for HAProxy.

    HAProxy binds with SO_REUSEPORT, so it would share a port with the HAProxy of another test without a word. A port
    that a socket is bound to is given to nobody who asks for a free one. The socket does not listen, so it gets no
    connection.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]


async def check(config: Path, *, haproxy: str = "", env: dict[str, str] | None = None) -> tuple[int, str]:
    """Have HAProxy check a file, where warnings are errors. Return its exit code, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *((haproxy or program()).split()),
        *("-c", "-dW", "-f", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


class Haproxy:
    """A process of HAProxy. ``folder`` holds ``haproxy.cfg`` and its other files."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._env = env
        self._process: asyncio.subprocess.Process | None = None
        # The path of a socket has at most 107 bytes, which pytest's folders can exceed.
        self._state = Path(tempfile.mkdtemp(prefix="haproxy-", dir="/tmp"))
        self._control = self._state / "control"

    async def start(self) -> None:
        """Start it, and return when it serves."""
        control = self._state / "control.cfg"
        control.write_text(_CONTROL.format(path=self._control))
        errors = self._state / "errors"
        with errors.open("ab") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                program(),
                *("-db", "-f", str(self._folder / "haproxy.cfg"), "-f", str(control)),
                stdout=stderr,
                stderr=stderr,
                env=self._env,
            )
        async with asyncio.timeout(DEADLINE):
            while not await self._answers():
                assert self._process.returncode is None, errors.read_text()
                await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        try:
            return "Uptime" in await self.ask("show info")
        except OSError:
            return False

    async def stop(self) -> None:
        """End it at once, with all its connections."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()

    async def restart(self) -> None:
        """End it, and start it anew. The new process knows nothing of what the old one has seen."""
        await self.stop()
        await self.start()

    def remove(self) -> None:
        shutil.rmtree(self._state)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def ask(self, command: str) -> str:
        """Return the answer to a command of HAProxy's Runtime API."""
        reader, writer = await asyncio.open_unix_connection(str(self._control))
        try:
            writer.write(f"{command}\n".encode())
            return (await reader.read()).decode()
        finally:
            writer.close()
            await writer.wait_closed()

    async def rows(self) -> Rows:
        text = (await self.ask("show stat")).removeprefix("# ")
        return {(row["pxname"], row["svname"]): row for row in csv.DictReader(io.StringIO(text)) if row["svname"]}

    async def is_up(self, proxy: str, server: str) -> bool:
        return (await self.rows())[proxy, server]["status"].startswith("UP")

    async def until(self, condition: Callable[[Rows], object], patience: float = DEADLINE) -> bool:
        """Wait until the figures are as they should be. Return false if they are not in time."""
        give_up = time.monotonic() + patience
        while not condition(await self.rows()):
            if time.monotonic() > give_up:
                return False
            await asyncio.sleep(0.02)
        return True

    async def until_sure(self, proxy: str, *servers: str) -> None:
        """Wait until checks have passed. Before that, a server is down after its first check that fails."""

        def are_sure(rows: Rows) -> bool:
            figures = [[int(rows[proxy, server][f"check_{name}"]) for name in HEALTH] for server in servers]
            return all([health == rise + fall - 1 for health, rise, fall in figures])

        assert await self.until(are_sure), f"the checks of {servers} do not pass"

    async def until_down(self, proxy: str, *servers: str, patience: float = DEADLINE) -> bool:
        def are_down(rows: Rows) -> bool:
            return all(rows[proxy, server]["status"].startswith("DOWN") for server in servers)

        return await self.until(are_down, patience)

    async def until_up(self, proxy: str, *servers: str, patience: float = DEADLINE) -> bool:
        def are_up(rows: Rows) -> bool:
            return all(rows[proxy, server]["status"].startswith("UP") for server in servers)

        return await self.until(are_up, patience)
