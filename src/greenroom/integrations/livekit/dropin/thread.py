"""An event loop of the pool's own: what the pool reads of its processes is not to hold up LiveKit's worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """Runs from its making until it is stopped. To be used from one other event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon: a worker that ends without closing its pool must not wait for it.
        self._thread = threading.Thread(target=self._loop.run_forever, name="greenroom-pool", daemon=True)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there, and return what it returns, or raise what it raises; cancelled here, it is cancelled there."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have it called there, after all that was asked for before."""
        self._loop.call_soon_threadsafe(function, *arguments)

    async def stop(self) -> None:
        """Stop when all that was asked for has been done, also what was cancelled here and still cleans up there."""
        await self.run(_others_done())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()


async def _others_done() -> None:
    """Wait for all other tasks of this event loop."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
