"""A worker in which something goes wrong for real, and the log of it and of the worker that follows it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import aiohttp
from server.running_worker import RunningWorker
from support import DEADLINE, eventually

from .app import APP, FAILS, GATE, place_of
from .facts import Facts

__all__ = ["CALLER", "Call", "Scene"]

CALLER = "<u>+15550100</u>"
"""Texts of callers are shown as text, and nothing else."""
_OPTIONS = ("--num-idle-processes", "1", "--log-format", "json", "--shown-metadata", "caller", "--drain-timeout", "0.2")


class Call(NamedTuple):
    id: str
    pid: int


class Scene:
    """A running worker with the options of an incident."""

    def __init__(self, make_app: Callable[[str], str], folder: Path, options: tuple[str, ...]) -> None:
        self._app = make_app(APP)
        self.path = Path(self._app.partition(":")[0])
        self.gate, self.fails, self.history = folder / "gate", folder / "fails", folder / "history.db"
        self.began = 0.0
        """Time at which the incident began."""
        self._options = (*_OPTIONS, "--history", str(self.history), *options)
        self._lines: list[dict[str, Any]] = []
        self._stack = AsyncExitStack()
        self._count = 0

    async def __aenter__(self) -> Scene:
        self.gate.touch()
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    # --- the worker ------------------------------------------------------------------------------

    async def start(self) -> None:
        environment = {**os.environ, GATE: str(self.gate), FAILS: str(self.fails)}
        self._port = _free_port()
        worker = RunningWorker(self._app, *self._options, "--port", str(self._port), env=environment)
        self.worker = await self._stack.enter_async_context(worker)
        await self.worker.logs("serving" if self.gate.exists() else "loading")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def ends(self, signum: int) -> None:
        """Have the worker end, and keep its log."""
        self.worker.signal(signum)
        await self.worker.exit_code()
        self._lines += map(json.loads, self.worker.lines)
        await self._stack.aclose()

    async def log(self) -> list[dict[str, Any]]:
        """End the worker, and return the log of all workers so far."""
        await self.ends(signal.SIGTERM)
        return self._lines

    async def is_in_history(self, job_id: str) -> None:
        """Wait until the file of the history has a job."""
        await eventually(lambda: job_id in _ids_in(self.history), "the job on disk")

    # --- calls -----------------------------------------------------------------------------------

    async def call(self, act: str, caller: str = CALLER) -> Call:
        """Start a call. The incident begins now."""
        self.began = time.time()
        self._count += 1
        job = await self.worker.start({"act": act, "caller": caller}, id=f"call-{self._count}", timeout=DEADLINE)
        return Call(job["id"], job["pid"])

    async def is_rejected(self, reason: str) -> str:
        """Send a call that is rejected, and return its id. The worker may still load the app."""
        self.began = time.time()
        order = {"id": "rejected", "metadata": {"act": "return", "caller": CALLER}, "timeout": 0.5}
        async with aiohttp.ClientSession() as session, session.post(f"{self.url}/v1/jobs", json=order) as answer:
            assert answer.status == 503, await answer.text()
            assert (await answer.json())["error"]["reason"] == reason
        return "rejected"

    def facts(self, cause: str | None, call: str | None = None, mark: str = "", **more: Any) -> Facts:
        """Return the truth about the incident, which is over now. ``mark`` is that of a line of the app."""
        place = place_of(self.path, mark) if mark else None
        known: dict[str, Any] = {"place": place, "call": call, "caller": None if call is None else CALLER}
        return Facts(self.began, cause, **(known | more))


def _ids_in(path: Path) -> set[str]:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as file:
            return {row[0] for row in file.execute("SELECT id FROM jobs")}
    except sqlite3.OperationalError:
        return set()  # the worker makes the file in this moment


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def clock_passes(at: float) -> None:
    """Wait until the clock shows a later time."""
    while time.time() <= at:
        await asyncio.sleep(0.05)
