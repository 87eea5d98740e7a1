"""Queue that delays the starts of accepted jobs in a burst of more rooms than idle processes.

A server waits 2.8 s for an answer, and asks no worker twice. An agent that joins its room takes all the CPU that it
gets, for tenths of a second. So the first agents would take the CPU from processes in their warm-up. Rooms that wait
for these processes would get no agent. So no agent starts while an offer waits for a process that is on its way.

The delayed starts then follow in batches that the CPUs can run. If all agents started at once, all would join late,
and time out for lack of CPU. This was measured with 20 rooms on 2 cores. Without batches, the median caller waited
7 to 12 s for its agent, and the last 10 to 14 s. With batches, it was 5 to 7 s, and 7 to 12 s for the last.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress

from ....errors import PoolClosed
from ....sources import PoolStats
from ....system.machine_limits import runnable_tasks, usable_cpus

__all__ = ["BATCH_PER_CPU", "BATCH_SECONDS", "RUNNABLE_PER_CPU", "StartQueue", "may_start", "someone_waits"]

BATCH_PER_CPU = 5
"""Number of agents on each CPU that can start together and join no later."""
BATCH_SECONDS = 2.0
"""Seconds from one batch to the next, even if the CPUs stay busy: other programs may use them."""
RUNNABLE_PER_CPU = 2
"""Threads that run or wait for a CPU, on each CPU. With fewer threads, a start need not wait for the next batch."""
_LOOK_EVERY = 0.01


def someone_waits(stats: PoolStats) -> bool:
    """Return whether an offer waits for a process while a process is on its way. Pure."""
    return stats.waiting > 0 and stats.warming > 0


def may_start(in_batch: int, runnable: float, cpus: float) -> bool:
    """Return whether one more job can start in a batch of ``in_batch`` starts. Pure.

    ``runnable`` is the number of threads that run or wait for a CPU, with the calling thread.
    """
    return in_batch < BATCH_PER_CPU * cpus or runnable - 1 < RUNNABLE_PER_CPU * cpus


class StartQueue:
    """Queue of delayed starts, in the order of their arrival.

    ``longest`` is the longest delay of one start, in seconds; 0 means that no start is delayed.
    """

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
        """True if the next start must wait for its turn."""
        return self._longest > 0 and (self._length > 0 or self._someone_waits())

    def notify(self) -> None:
        """Check again whether an offer waits."""
        self._changed.set()

    async def wait_turn(self, patience: float) -> None:
        """Wait for the turn of one start, for at most ``patience`` seconds and at most the longest delay."""
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
        while not self._is_in_batch():  # noqa: ASYNC110 - no event reports how busy the CPUs are
            await asyncio.sleep(_LOOK_EVERY)

    def _is_in_batch(self) -> bool:
        """Count the next start into this batch, or into a new one. Return false if it must wait."""
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
        return math.inf  # no fds are left to read with, so time alone decides
