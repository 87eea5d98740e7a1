"""Greenroom, through its public interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from benchmarks.peers.base import Order
from benchmarks.peers.inbox import Inbox
from greenroom import ProcessPool

APP = "benchmarks.peers.greenroom_app:app"


class GreenroomPool:
    def __init__(self, inbox: Inbox) -> None:
        pass  # the pool itself says which processes are idle

    async def open(self, idle: int, most: int) -> None:
        self._idle = idle
        self._pool = ProcessPool(
            APP,
            num_idle_processes=idle,
            max_idle_processes=idle,
            max_jobs=most,
        )
        await self._pool.start()

    async def settled(self) -> None:
        while len(self.idle_pids()) < self._idle or len(self._pool.processes) > self._idle:
            await asyncio.sleep(0.005)

    async def launch(self, order: Order) -> Awaitable[object]:
        handle = await self._pool.launch(dict(order), timeout=60.0)
        return asyncio.ensure_future(handle.wait())

    def idle_pids(self) -> list[int]:
        return [process.pid for process in self._pool.processes if _is_idle(process)]

    async def cold(self, count: int) -> AsyncIterator[float]:
        await self.open(idle=1, most=count + 2)
        for target in range(2, count + 2):
            await asyncio.sleep(0.05)
            started = time.monotonic_ns()
            await self._grow(target)
            yield (time.monotonic_ns() - started) / 1e6

    async def _grow(self, target: int) -> None:
        growing = asyncio.ensure_future(self._resize(target))
        while len(self.idle_pids()) < target:
            await asyncio.sleep(0.0002)
        await growing

    async def _resize(self, target: int) -> None:
        outcome: Any = self._pool.resize(target)
        if asyncio.iscoroutine(outcome):
            await outcome


def _is_idle(process: Any) -> bool:
    return str(getattr(process.state, "name", process.state)).upper() == "IDLE"
