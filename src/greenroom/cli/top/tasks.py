"""Tasks of the live view, none of which fails unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Tasks"]


class Tasks:
    """Tasks that run until they are done or cancelled. ``wake`` is called when one of them fails."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        """First error of a task."""
        self._running: set[asyncio.Task[None]] = set()
        self._wake = wake

    def start(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        """Start a task, and return the function that cancels it."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._on_end)
        return task.cancel

    async def cancel(self) -> None:
        """Cancel all tasks, and wait for their end."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self.error is None:
            self.error = error
            self._wake()
