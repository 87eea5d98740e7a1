"""Waits for the processes of a pool to become idle, or to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from ..pool import ProcessPool
from ..pool.events import BreakerChanged, Event, ProcessEnded, ProcessWarmed

__all__ = ["Pace"]

_MARGIN = 10.0
"""Seconds beyond ``prewarm_timeout`` until a process is idle, or is reported as failed."""


class Pace:
    """Listener to the events of a pool, as a context manager. Enter the context before the pool starts."""

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._warmed: dict[str, ProcessWarmed] = {}
        self._latest: ProcessWarmed | None = None
        self._has_failed = False
        self._changed = asyncio.Event()
        self._unsubscribe: Callable[[], None]

    def __enter__(self) -> Pace:
        self._unsubscribe = self._pool.subscribe(self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._unsubscribe()

    async def grow(self, size: int) -> ProcessWarmed | None:
        """Make ``size`` processes idle, one more than now, and return the event of the last one.

        If a process fails to become idle, or takes too long, return ``None``.
        """
        self._has_failed, self._latest = False, None
        self._pool.resize(size)
        timeout = self._pool.options.prewarm_timeout + _MARGIN
        try:
            async with asyncio.timeout(timeout):
                await self._until(lambda: self._is_there(size) or self._has_failed)
        except TimeoutError:
            return None
        return None if self._has_failed else self._latest

    def _is_there(self, size: int) -> bool:
        """Return true if the processes are idle and the event has arrived, which takes one more turn of the loop."""
        return self._pool.stats().idle >= size and self._latest is not None

    async def until_idle(self, count: int, timeout: float) -> bool:
        """Wait until ``count`` processes are idle. Return false if they are not idle within ``timeout`` seconds."""
        try:
            async with asyncio.timeout(max(timeout, 0.0)):
                await self._until(lambda: self._pool.stats().idle >= count)
        except TimeoutError:
            return False
        return True

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _hear(self, event: Event) -> None:
        if isinstance(event, ProcessWarmed):
            self._warmed[event.process_id] = self._latest = event
        elif isinstance(event, ProcessEnded):
            was_idle = self._warmed.pop(event.report.process_id or "", None) is not None
            self._has_failed = self._has_failed or not was_idle
        elif isinstance(event, BreakerChanged):
            self._has_failed = self._has_failed or event.is_open
        self._changed.set()
