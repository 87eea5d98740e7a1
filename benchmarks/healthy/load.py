"""The calls: a steady rate, and a burst that takes all places. Each call is followed to its report."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import aiohttp
from server.running_worker import RunningWorker

__all__ = ["Call", "Load"]

PER_SECOND = 2.0
SECONDS = (1.0, 8.0)
"""Shortest and longest call."""
CANCELLED = 0.1
"""Share of the calls that are cancelled, halfway."""
PATIENCE = 30.0
"""Seconds that a call may wait for a process. On a busy machine a call waits, and is not rejected."""


@dataclass
class Call:
    id: str
    seconds: float
    is_cancelled: bool = False
    at: float = 0.0
    """When it was asked for, in seconds since the epoch."""
    answer: str = ""
    """``accepted``, the reason of a rejection, or what went wrong."""
    start_ms: float | None = None
    end: str | None = None
    """Outcome and reason."""


class Load:
    """Calls a worker. ``calls`` are all calls so far."""

    def __init__(self, worker: RunningWorker, seed: int) -> None:
        self.calls: list[Call] = []
        self._worker = worker
        self._chance = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()

    async def steady(self) -> None:
        """Call at a steady rate, until cancelled."""
        due = time.monotonic()
        while True:
            self.call(self._chance.uniform(*SECONDS), is_cancelled=self._chance.random() < CANCELLED)
            due = max(due + 1 / PER_SECOND, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def call(self, seconds: float, *, is_cancelled: bool = False) -> None:
        call = Call(f"call-{len(self.calls)}", seconds, is_cancelled, at=time.time())
        self.calls.append(call)
        task = asyncio.create_task(self._serve(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Wait for the ends of all calls."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, call: Call) -> None:
        try:
            await self._ask(call)
        except (aiohttp.ClientError, TimeoutError) as error:
            call.answer = call.answer if call.answer not in ("", "accepted") else f"lost: {error!r}"

    async def _ask(self, call: Call) -> None:
        metadata = {"seconds": call.seconds, "caller": f"+1555{random.randrange(10**7):07d}"}
        answer = await self._worker.post(metadata, id=call.id, timeout=PATIENCE)
        if answer.status != 201:
            call.answer = str(answer.error.get("reason") or answer.error["type"])
            return
        call.answer, call.start_ms = "accepted", answer.body["start_ms"]
        if call.is_cancelled:
            await asyncio.sleep(call.seconds / 2)
            await self._worker.ask("DELETE", f"/v1/jobs/{call.id}?reason=enough")
        while (report := (await self._worker.get(f"/v1/jobs/{call.id}?wait=30")).body["report"]) is None:
            pass
        call.end = f"{report['outcome']}, {report['reason']}"
