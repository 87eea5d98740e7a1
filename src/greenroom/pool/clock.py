"""The time that the supervisor itself was awake for.

Every deadline of the pool is measured on this clock. If the supervisor was stopped, starved, or kept
from its event loop by other code in it, that time is left out: its children were not slow, it was
not looking. So when it wakes up after any while, no healthy child has run out of time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

__all__ = ["AwakeClock", "Timer", "wall_time"]

_logger = logging.getLogger("greenroom")

LONGEST_SLEEP = 0.25
TOLERANCE = 0.25
"""Seconds: being late by more than this is taken for a pause."""

_COMPACT_EVERY = 1024


class Timer:
    """A call to be made later, until it is cancelled."""

    __slots__ = ("args", "fn", "when")

    def __init__(self, when: float, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self.fn: Callable[..., object] | None = fn
        self.args = args

    def cancel(self) -> None:
        self.fn, self.args = None, ()


class AwakeClock:
    """A scheduler on awake time. ``real`` is the monotonic clock underneath, passed in for tests."""

    def __init__(self, real: Callable[[], float] = time.monotonic) -> None:
        self._real = real
        self._now = self._read_at = real()
        self._paused = 0.0
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Run on the current event loop, from now."""
        self._loop = asyncio.get_running_loop()
        self._read_at = self._real()
        self._sleep()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop = None
        self._heap.clear()

    def now(self) -> float:
        """Seconds awake. Between two wake-ups it runs with the real clock."""
        return self._now + _counted(self._real() - self._read_at)

    @property
    def paused(self) -> float:
        """Seconds that were left out so far."""
        return self._paused

    def call_later(self, delay: float, fn: Callable[..., object], *args: Any) -> Timer:
        timer = Timer(self.now() + delay, fn, args)
        number = next(self._order)
        heapq.heappush(self._heap, (timer.when, number, timer))
        if number % _COMPACT_EVERY == 0:
            self._compact()
        if self._loop is not None and timer.when < self._wakes_at:
            self._sleep()
        return timer

    def _compact(self) -> None:
        """Drop cancelled timers: a long job_timeout of many short jobs would fill the heap with them."""
        self._heap = [entry for entry in self._heap if entry[2].fn is not None]
        heapq.heapify(self._heap)

    def advance(self) -> None:
        """Count the time since the last look, and call what is due."""
        elapsed = self._real() - self._read_at
        counted = _counted(elapsed)
        self._read_at += elapsed
        self._now += counted
        if elapsed > counted:
            self._paused += elapsed - counted
            _logger.warning("the supervisor was held up for %.1f s; no deadline counts that", elapsed - counted)
        while self._heap and self._heap[0][0] <= self._now:
            self._call(heapq.heappop(self._heap)[2])

    def _call(self, timer: Timer) -> None:
        fn, args = timer.fn, timer.args
        timer.cancel()
        if fn is None:
            return
        try:
            fn(*args)
        except Exception:
            # One deadline that fails must not keep the others from being met.
            _logger.exception("a deadline of the pool failed: %r", fn)

    def _wake(self) -> None:
        self.advance()
        if self._loop is not None:
            self._sleep()

    def _sleep(self) -> None:
        assert self._loop is not None
        while self._heap and self._heap[0][2].fn is None:
            heapq.heappop(self._heap)
        delay = min(self._heap[0][0] - self.now(), LONGEST_SLEEP) if self._heap else LONGEST_SLEEP
        delay = max(delay, 0.0)
        if self._handle is not None:
            self._handle.cancel()
        self._wakes_at = self.now() + delay
        self._handle = self._loop.call_later(delay, self._wake)


def _counted(elapsed: float) -> float:
    """How much of the time since the last look was spent awake.

    Of a pause nothing counts, not even its start: what arrived meanwhile is to be read first.
    """
    return elapsed if elapsed <= LONGEST_SLEEP + TOLERANCE else 0.0


# One fixed offset, so that the differences of two wall-clock times are as true as the monotonic clock.
_EPOCH = time.time() - time.monotonic()


def wall_time(monotonic: float) -> float:
    """A reading of the monotonic clock as seconds since the epoch."""
    return _EPOCH + monotonic
