"""When an accepted job is started: at once, but for the moments in which others have no answer yet.

A server waits 2.8 s for an answer, and asks nobody a second time; and an agent that joins its room uses all the CPU
that it gets for tenths of a second. So when more rooms come at once than processes are idle, the first agents'
joining starves the processes that the other rooms wait for, and these rooms get no agent at all. Answers go first,
then: for a bounded time, and only while there is a process on its way for somebody who waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from ....errors import PoolClosed
from ....pool import PoolStats

__all__ = ["StartGate", "someone_waits"]


def someone_waits(stats: PoolStats) -> bool:
    """Whether an offer waits for a process, and one is on its way. Pure."""
    return stats.waiting > 0 and stats.warming > 0


class StartGate:
    """``longest`` is how many seconds one start is put off at most; 0 is never."""

    def __init__(self, look: Callable[[], PoolStats], longest: float) -> None:
        self._look = look
        self._longest = longest
        self._held = 0
        self._opening = asyncio.Event()

    @property
    def is_open(self) -> bool:
        if not self._longest:
            return True
        try:
            return not someone_waits(self._look())
        except PoolClosed:
            return True

    def poke(self) -> None:
        """Whether somebody waits may have changed. Looks once for all starts that are put off, however many."""
        if self._held and self.is_open:
            self._opening.set()

    async def opened(self, patience: float) -> None:
        """Return when nobody waits any more, or after ``patience`` seconds, or after the longest time."""
        if self.is_open:
            return
        self._opening.clear()
        self._held += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._longest, patience)):
                    await self._opening.wait()
        finally:
            self._held -= 1
