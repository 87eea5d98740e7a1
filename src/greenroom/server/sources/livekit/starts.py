"""When an accepted job is started: at once, but in a burst of more rooms than processes are idle.

A server waits 2.8 s for an answer, and asks nobody a second time; and an agent that joins its room uses all the CPU
that it gets for tenths of a second. So the first agents' joining would starve the processes that the other rooms wait
for, and these rooms would get no agent at all. Answers go first, then, as long as a process is on its way for somebody
who waits.

The starts that were put off are then made in batches of what the CPUs can carry. Were they all made at once, all would
join at the pace of the slowest, and run into time-outs for want of CPU: of 20 rooms on 2 cores the median caller heard
its agent after 7 to 12 s instead of 5 to 7, the last after 10 to 14 instead of 7 to 12.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress

from ....errors import PoolClosed
from ....pool import PoolStats
from ....system.machine_limits import runnable_tasks, usable_cpus

__all__ = ["BATCH_PER_CPU", "BATCH_SECONDS", "RUNNABLE_PER_CPU", "StartQueue", "may_start", "someone_waits"]

BATCH_PER_CPU = 5
"""So many agents on each CPU join no later for starting together."""
BATCH_SECONDS = 2.0
"""From one batch to the next, however busy the CPUs are: that may be others' doing."""
RUNNABLE_PER_CPU = 2
"""Threads that run or want to: with fewer there is no need to wait for the next batch."""
_LOOK_EVERY = 0.01


def someone_waits(stats: PoolStats) -> bool:
    """Whether an offer waits for a process, and one is on its way. Pure."""
    return stats.waiting > 0 and stats.warming > 0


def may_start(in_batch: int, runnable: float, cpus: float) -> bool:
    """Whether there can be one more start in a batch that has so many. Pure.

    ``runnable`` are the threads that run or want to; one of them is the one that asks.
    """
    return in_batch < BATCH_PER_CPU * cpus or runnable - 1 < RUNNABLE_PER_CPU * cpus


class StartQueue:
    """First come, first served. ``longest`` is how many seconds one start is put off at most; 0 is never."""

    def __init__(self, look: Callable[[], PoolStats], longest: float) -> None:
        self._look = look
        self._longest = longest
        self._cpus = usable_cpus()
        self._length = 0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._batch_began = -math.inf
        self._in_batch = 0

    @property
    def is_needed(self) -> bool:
        """Whether a start is to be put off."""
        return self._longest > 0 and (self._length > 0 or self._someone_waits())

    def poke(self) -> None:
        """Whether somebody waits may have changed."""
        self._changed.set()

    async def stand_in(self, patience: float) -> None:
        """Return when it is time to start; after ``patience`` seconds, or the longest time, in any case."""
        self._length += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._longest, patience)), self._turn:
                    await self._until_nobody_waits()
                    await self._until_there_is_room()
        finally:
            self._length -= 1

    async def _until_nobody_waits(self) -> None:
        while self._someone_waits():
            self._changed.clear()
            await self._changed.wait()

    async def _until_there_is_room(self) -> None:
        while not self._is_in_batch():  # noqa: ASYNC110 - nobody tells how busy the CPUs are
            await asyncio.sleep(_LOOK_EVERY)

    def _is_in_batch(self) -> bool:
        """Whether the next start is one of this batch, or the first of another."""
        now = asyncio.get_running_loop().time()
        if now - self._batch_began >= BATCH_SECONDS:
            self._batch_began, self._in_batch = now, 0
        if not may_start(self._in_batch, _runnable(), self._cpus):
            return False
        self._in_batch += 1
        return True

    def _someone_waits(self) -> bool:
        try:
            return someone_waits(self._look())
        except PoolClosed:
            return False


def _runnable() -> float:
    try:
        return runnable_tasks()
    except OSError:
        return math.inf  # there are no fds to look with: then it goes by the time alone
