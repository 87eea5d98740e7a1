"""`pebble.ProcessPool(max_tasks=1)`: so many workers, replaced by a thread that looks every 0.1 s."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable

import pebble

from benchmarks.peers import blocking, blocking_job
from benchmarks.peers.base import JobMetadata
from benchmarks.peers.inbox import Inbox


class PebblePool:
    def __init__(self, inbox: Inbox, start_method: str) -> None:
        self._inbox = inbox
        self._context = blocking.context(start_method)

    def _make(self, workers: int) -> pebble.ProcessPool:
        return pebble.ProcessPool(
            max_workers=workers,
            max_tasks=1,
            initializer=blocking_job.initialize,
            initargs=(self._inbox.fifo,),
            context=self._context,
        )

    async def open(self, idle: int, most: int) -> None:
        self._idle = idle
        self._pool = self._make(idle)
        await (await self.launch(self._inbox.metadata()))  # the first call starts the workers
        await self.settled()

    async def settled(self) -> None:
        await blocking.warm_processes(self._inbox, self._idle)

    async def launch(self, metadata: JobMetadata) -> Awaitable[object]:
        return asyncio.wrap_future(self._pool.schedule(blocking_job.run, args=(metadata,)))

    def idle_pids(self) -> list[int]:
        return list(self._inbox.warm)

    async def cold(self, count: int) -> AsyncIterator[float]:
        """From the first call of a new pool of one worker to its entrypoint being entered."""
        for number in range(count + 1):
            pool, metadata = self._make(1), self._inbox.metadata()
            called = time.monotonic_ns()
            pool.schedule(blocking_job.run, args=(metadata,))
            entered = await self._inbox.entered(metadata)
            if number:  # the first one also started the forkserver
                yield (entered - called) / 1e6
            await asyncio.to_thread(_finish, pool)


def _finish(pool: pebble.ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()
