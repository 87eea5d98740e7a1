"""Greenroom, through its public interface and with its default options."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable

from benchmarks.peers.base import JobMetadata
from benchmarks.peers.inbox import Inbox
from greenroom import ProcessPool

APP = "benchmarks.peers.greenroom_app:app"
_PATIENCE = 60.0


class GreenroomPool:
    def __init__(self, inbox: Inbox) -> None:
        pass  # the pool itself says which processes are idle

    async def open(self, idle: int, most: int) -> None:
        self._idle = idle
        self._pool = ProcessPool(APP, num_idle_processes=idle, max_idle_processes=idle, max_jobs=most)
        await self._pool.start()

    async def settled(self) -> None:
        while self._pool.stats().idle < self._idle or len(self._pool.processes) > self._idle:
            await asyncio.sleep(0.005)

    async def launch(self, metadata: JobMetadata) -> Awaitable[object]:
        handle = await self._pool.launch(metadata, timeout=_PATIENCE)
        return asyncio.ensure_future(handle.wait())

    def idle_pids(self) -> list[int]:
        processes = self._pool.processes
        return [one.pid for one in processes if one.pid is not None and one.state == "idle"]

    async def cold(self, count: int) -> AsyncIterator[float]:
        """From raising the idle target by one to that many processes being idle."""
        self._pool = ProcessPool(APP, num_idle_processes=1, max_idle_processes=count + 1)
        await self._pool.start()
        for target in range(2, count + 2):
            await asyncio.sleep(0.05)
            started = time.monotonic_ns()
            self._pool.resize(target)
            while self._pool.stats().idle < target:
                await asyncio.sleep(0.0002)
            yield (time.monotonic_ns() - started) / 1e6
