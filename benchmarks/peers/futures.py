"""`concurrent.futures.ProcessPoolExecutor(max_tasks_per_child=1)`.

It keeps no idle target: it starts a process for a call while it has fewer than `max_workers`, and replaces
each one that has ended. So it is warm once as many calls as the target have been made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import ProcessPoolExecutor

from benchmarks.peers import blocking, blocking_job
from benchmarks.peers.base import JobMetadata
from benchmarks.peers.inbox import Inbox

_FOREVER = 3600.0


class FuturesPool:
    def __init__(self, inbox: Inbox, start_method: str) -> None:
        self._inbox = inbox
        self._context = blocking.context(start_method)

    def _make(self, most: int) -> None:
        self._pool = ProcessPoolExecutor(
            max_workers=most,
            mp_context=self._context,
            initializer=blocking_job.initialize,
            initargs=(self._inbox.fifo,),
            max_tasks_per_child=1,
        )

    async def open(self, idle: int, most: int) -> None:
        self._idle = idle
        self._make(most)
        ended = [await self.launch(self._inbox.metadata()) for _ in range(idle)]
        await asyncio.gather(*ended)
        await self.settled()

    async def settled(self) -> None:
        await blocking.warm_processes(self._inbox, self._idle)

    async def launch(self, metadata: JobMetadata) -> Awaitable[object]:
        return asyncio.wrap_future(self._pool.submit(blocking_job.run, metadata))

    def idle_pids(self) -> list[int]:
        return list(self._inbox.warm)

    async def cold(self, count: int) -> AsyncIterator[float]:
        """From a call that finds no idle process to its entrypoint being entered."""
        self._make(count + 1)
        for number in range(count + 1):
            metadata = self._inbox.metadata(hold=_FOREVER)
            called = time.monotonic_ns()
            self._pool.submit(blocking_job.run, metadata)
            entered = await self._inbox.entered(metadata)
            if number:  # the first one also started the forkserver
                yield (entered - called) / 1e6
            await asyncio.sleep(0.05)
