"""Thread with an event loop for the pool, so that the pool's reads do not delay LiveKit's worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """Event loop in a thread. It runs from its construction until :meth:`stop`. One other event loop may use it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon thread: a worker that ends without closing its pool must not wait for the thread.
        self._thread = threading.Thread(target=self._loop.run_forever, name="greenroom-pool", daemon=True)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread, and return its result or raise its error.

        If the caller is cancelled, the coroutine is cancelled, too.
        """
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function in the thread, after all earlier calls."""
        self._loop.call_soon_threadsafe(function, *arguments)

    async def stop(self) -> None:
        """Stop the thread after all its tasks have ended, also cancelled tasks that still clean up."""
        await self.run(_others_done())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()


async def _others_done() -> None:
    """Wait for all other tasks of this event loop."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
