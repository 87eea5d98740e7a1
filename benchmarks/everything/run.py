"""One run: the LiveKit server, the worker, the calls and the chaos, from start to account."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rooms.livekit_server import LiveKitServer

from benchmarks.hostile.helpers import Helper
from greenroom.system import prctl, proc

from . import census
from .account import Account, Violation
from .chaos import Chaos
from .client import Client
from .http_calls import HttpCalls
from .ledger import Ledger
from .recording import save_recording
from .room_calls import RoomCalls
from .worker import Worker

__all__ = ["Options", "Run"]

CALM_SHARE = 0.2
"""Of the run, at its end, in which the worker itself is left alone: so that what it gathers can be seen."""
SAMPLE_EVERY = 1.0
PROBE_EVERY = 0.1


@dataclass(frozen=True)
class Options:
    minutes: float
    seed: int
    folder: Path
    """For what is kept: logs, and a recording where there is a violation."""
    lines: int = 6
    """How many calls by HTTP at a time."""
    rooms: int = 2
    """How many calls by LiveKit at a time."""
    pause: float = 0.6
    """Seconds between two acts of the chaos, on average."""
    is_honest: bool = True
    """False: one kill is not noted in the ledger."""


@dataclass(slots=True)
class Result:
    """What a run has found, beside its account."""

    violation: Violation | None = None
    recording: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    files: str = ""
    probe: dict[str, Any] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)
    """Of the machine, each second."""
    seconds: float = 0.0


class Run:
    """``await go()``; then everything that it has started has ended."""

    def __init__(self, options: Options, work: Path, binary: Path | None, environment: dict[str, str]) -> None:
        self.options = options
        self.result = Result()
        self.ledger = Ledger(options.folder / "ledger.txt")
        self.known: set[int] = set()
        self._server = LiveKitServer(binary, options.folder / "livekit.log") if binary else None
        livekit = self._server.environment if self._server else {}
        self.worker = Worker(work, {**environment, **livekit}, options.folder / "worker.log")
        self.account = Account(self.ledger, self.worker.ledger)
        self.client = Client(self.worker.url)
        self.http = HttpCalls(self.client, self.account, options.seed)
        self.rooms: RoomCalls | None = None
        self.chaos = Chaos(self.worker, self.client, self.account, options.seed, self.known)
        self.chaos.is_honest = options.is_honest
        self._stop, self._hush = asyncio.Event(), asyncio.Event()
        self._fresh_files: Counter[str] = Counter()

    async def go(self) -> Result:
        begin = time.monotonic()
        prctl.set_child_subreaper()  # what the worker leaves behind comes here, and cannot hide
        try:
            async with AsyncExitStack() as stack:
                stack.callback(self.ledger.close)
                stack.callback(self.account.close)
                stack.push_async_callback(self.worker.close)
                await self._open(stack)
                await self._soak()
                await self._take_census()
        except Violation as violation:
            self.result.violation = violation
        self.result.seconds = time.monotonic() - begin
        return self.result

    async def _open(self, stack: AsyncExitStack) -> None:
        before = set(proc.children(os.getpid()))
        await stack.enter_async_context(self.client)
        if self._server is not None:
            await self._server.start()
            stack.push_async_callback(self._server.kill)
            self.known |= {self._server.pid}
            self.rooms = RoomCalls(self._server, self.client, self.account, self.options.seed)
            await stack.enter_async_context(self.rooms)
        self.known |= set(proc.children(os.getpid())) | before
        self.worker.known_children = self.known
        await self.worker.start()
        await self._one_question()
        if unrest := await census.calm(self.client):
            raise Violation([unrest])
        self._fresh_files = census.files_of(self.worker.pid)

    # --- the soak ----------------------------------------------------------------------------------

    async def _soak(self) -> None:
        address = urlsplit(self.worker.url)
        where = {"host": address.hostname, "port": address.port, "every": PROBE_EVERY}
        probe = Helper("benchmarks.hostile.probe", where)
        await probe.start()
        self.known |= set(proc.children(os.getpid())) - {self.worker.pid}
        following = asyncio.create_task(self.client.follow(self.account.hear))
        watching = asyncio.create_task(self._watch())
        try:
            await self._break_and_call()
        except Violation as violation:
            await self._record(violation)
            raise
        finally:
            for task in (watching, following):
                task.cancel()
            await asyncio.gather(watching, following, return_exceptions=True)
            probe.finish()
            with suppress(TimeoutError):
                async with asyncio.timeout(30):
                    async for line in probe.lines():
                        self.result.probe = line
            await probe.end(10)

    async def _break_and_call(self) -> None:
        seconds = self.options.minutes * 60
        jobs: list[Coroutine[Any, Any, None]] = [self.http.line(self._stop, 0.5) for _ in range(self.options.lines)]
        if self.rooms is not None:
            jobs += [self.rooms.line(self._stop, 2.0) for _ in range(self.options.rooms)]
        jobs += [self.chaos.run(self._hush, self.options.pause), self._until_over(seconds), self._until_wrong()]
        tasks = [asyncio.create_task(job) for job in jobs]
        *calls, _, wrong = tasks
        try:
            while not wrong.done() and not all(task.done() for task in calls):
                running = [task for task in (*calls, wrong) if not task.done()]
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            if self.account.violation is not None:
                raise self.account.violation
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_over(self, seconds: float) -> None:
        await asyncio.sleep(seconds * (1 - CALM_SHARE))
        self.chaos.spares_worker = True
        await asyncio.sleep(seconds * CALM_SHARE)
        self._hush.set()
        self._stop.set()

    async def _until_wrong(self) -> None:
        while self.account.violation is None:
            await asyncio.sleep(0.1)

    async def _watch(self) -> None:
        """Sample the worker's memory; notice when it ends though nobody told it to."""
        while True:
            await asyncio.sleep(SAMPLE_EVERY)
            self.account.read_entries()
            self.worker.sample()
            self.result.loads.append(os.getloadavg()[0])
            if self.worker.log.tracebacks:
                self.account.judge([f"the worker raised: {self.worker.log.tracebacks[0]}"])
            code = self.worker.has_ended
            if code is not None and not self.chaos.ends_worker:
                self.account.judge([f"the worker ended with exit code {code}:\n{self.worker.log.tail}"])

    async def _record(self, violation: Violation) -> None:
        self.result.recording = await asyncio.to_thread(save_recording, self.worker.url, self.options.folder)
        self.ledger.note(violation.at, f"VIOLATION {violation}")

    # --- the end -----------------------------------------------------------------------------------

    async def _take_census(self) -> None:
        """Look for what is left of all that."""
        if unrest := await census.calm(self.client):
            raise Violation([unrest])
        zombies = await census.zombies_below(self.worker)
        growth = await census.grown(self.worker, self._fresh_files)
        total = census.files_of(self.worker.pid).total()
        self.result.files = f"{total} at the end, {self._fresh_files.total()} at the beginning"
        code, left = await self.worker.stop()
        faults = [f"its exit code was {code}"] if code else []
        faults += [f"left over: {each}" for each in left]
        faults += [f"zombies: {zombies}"] if zombies else []
        faults += [f"open files grew: {dict(growth)}"] if growth else []
        faults += [f"left in /dev/shm: {name}" for name in await census.left_in_memory(self.worker)]
        self.result.left = faults
        if faults:
            raise Violation(faults)

    async def _one_question(self) -> None:
        """Have a fresh worker run one job, so that it has a resident process as well."""
        body = {"metadata": {"plan": "return", "seconds": 0, "nonce": "fresh"}}
        _, answer = await self.client.ask("POST", "/v1/jobs", body)
        await self.client.ask("GET", f"/v1/jobs/{answer['id']}?wait=30")
