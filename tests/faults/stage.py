"""Processes under test that say where they are, and wait to be told what to do: no sleeping, no polling."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from support import DEADLINE, eventually, idle_pids

from greenroom import ProcessPool

__all__ = ["HELD_WHEN_CLAIMED", "PLAIN", "Stage", "Visit", "assert_recovered", "starting", "steady"]

PLAIN = """
@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    if ctx.job.metadata == "stay":
        await on_stage("job", ctx.job.id)
    return os.getpid()
"""
"""A job that notes its start, and with the metadata "stay" goes on until it is ordered to leave."""

HELD_WHEN_CLAIMED = (
    PLAIN
    + """
from greenroom.zygote.child_main import ChildMain

acknowledge_and_perform = ChildMain._perform

async def hold(self, start, metadata):
    block_on_stage("claimed", start.job_id)
    return await acknowledge_and_perform(self, start, metadata)

ChildMain._perform = hold
"""
)
"""The same, with a main that is held when it has its job, and has not acknowledged it."""

_PRELUDE = """
import socket

def note(*words):
    fd = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(fd, (" ".join(map(str, words)) + "\\n").encode())
    os.close(fd)

async def on_stage(phase, name="-"):
    reader, writer = await asyncio.open_unix_connection(STAGE)
    try:
        writer.write(f"{phase} {os.getpid()} {name}\\n".encode())
        return (await reader.readline()).decode().strip()
    finally:
        writer.close()

def block_on_stage(phase, name="-"):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(STAGE)
        sock.sendall(f"{phase} {os.getpid()} {name}\\n".encode())
        return sock.makefile().readline().strip()
"""


class Visit:
    """A process on the stage, from when it came until it leaves or dies."""

    def __init__(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.phase, pid, self.name = line.decode().split()
        self.pid = int(pid)
        self._reader, self._writer = reader, writer

    def order(self, what: str) -> None:
        self._writer.write(f"{what}\n".encode())

    async def ordered(self, what: str) -> None:
        """Send an order, and wait until it is written to the socket."""
        self.order(what)
        await self._writer.drain()

    async def left(self) -> None:
        """Wait until it has left, or is dead."""
        async with asyncio.timeout(DEADLINE):
            await self._reader.read()


class Stage:
    """Where processes report to, and the ledger in which they write down what they did."""

    def __init__(self, make_app: Callable[[str], str]) -> None:
        self._make_app = make_app
        self._directory = Path(tempfile.mkdtemp())  # tmp_path may be too long for the address of a socket
        self._address = str(self._directory / "stage")
        self._ledger = self._directory / "ledger"
        self._visits: dict[str, asyncio.Queue[Visit]] = {}
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Stage:
        self._server = await asyncio.start_unix_server(self._enter, self._address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
        await self._server.wait_closed()
        shutil.rmtree(self._directory)

    def app(self, source: str = PLAIN) -> str:
        return self._make_app(f"STAGE, LEDGER = {self._address!r}, {str(self._ledger)!r}\n{_PRELUDE}\n{source}")

    @property
    def directory(self) -> Path:
        return self._directory

    async def next(self, phase: str) -> Visit:
        """The next process that comes on stage in this phase."""
        async with asyncio.timeout(DEADLINE):
            return await self._queue(phase).get()

    def is_empty(self, phase: str) -> bool:
        return self._queue(phase).empty()

    def noted(self, word: str) -> list[list[str]]:
        """The lines of the ledger that begin with this word, without it."""
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        return [words[1:] for words in map(str.split, lines) if words[0] == word]

    def starts(self) -> Counter[str]:
        """How many times each job has entered its entrypoint."""
        return Counter(job_id for (job_id,) in self.noted("start"))

    def _queue(self, phase: str) -> asyncio.Queue[Visit]:
        return self._visits.setdefault(phase, asyncio.Queue())

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        line = await reader.readline()
        if line.endswith(b"\n"):  # else it died on its way in
            visit = Visit(line, reader, writer)
            self._queue(visit.phase).put_nowait(visit)


def steady(idle: int) -> dict[str, Any]:
    """Options for a pool that is back at this many idle processes, however busy it or the machine has been."""
    return {"num_idle_processes": idle, "max_idle_processes": idle, "idle_ttl": 0.2}


async def assert_recovered(pool: ProcessPool, idle: int) -> None:
    """The pool is back at its idle target, with processes that live, and nothing else under way."""

    def is_back() -> bool:
        stats = pool.stats()
        at_rest = stats.warming == stats.jobs == stats.waiting == 0
        others = [process for process in pool.processes if process.state != "resident"]
        return at_rest and stats.idle == len(others) == stats.idle_target == idle

    await eventually(is_back, f"{idle} idle processes and nothing else")
    assert pool.stats().ready == (idle > 0)
    for pid in idle_pids(pool):
        os.kill(pid, 0)


@asynccontextmanager
async def starting(pool: ProcessPool) -> AsyncIterator[asyncio.Task[None]]:
    """A pool that has begun to start, and need not have got far."""
    task = asyncio.create_task(pool.start())
    try:
        yield task
    finally:
        await pool.aclose()
        await asyncio.gather(task, return_exceptions=True)
