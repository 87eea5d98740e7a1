"""Clock of awake time: the time in which the supervisor's event loop could run.

All deadlines of the pool are measured on this clock. The clock leaves out each pause. In a pause, the supervisor was
stopped or starved of CPU, or other code blocked its event loop. Then the supervisor cannot see that its children are in
time. So no healthy child misses a deadline because of a pause.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from ...log_fields import log_fields

__all__ = ["AwakeClock", "Timer"]

_logger = logging.getLogger("greenroom")

COARSEST = 0.125
"""Seconds between two times of the coarsest grid for calls that need not be exact."""
LONGEST_SLEEP = 0.25
TOLERANCE = 0.25
"""Seconds. A wake-up that is later than this counts as a pause."""

_COMPACT_EVERY = 1024


class Timer:
    """Later call of a function, which can be cancelled."""

    __slots__ = ("args", "fn", "when")

    def __init__(self, when: float, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self.fn: Callable[..., object] | None = fn
        self.args = args

    def cancel(self) -> None:
        self.fn, self.args = None, ()


class AwakeClock:
    """Scheduler on awake time. ``real`` reads the monotonic clock; tests pass another function."""

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
        """Run on the current event loop, from now on."""
        self._loop = asyncio.get_running_loop()
        now = self._real()
        self._paused += now - self._read_at
        self._read_at = now
        self._sleep()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop = None
        self._heap.clear()

    def now(self) -> float:
        """Return the seconds awake. Between two wake-ups, this time advances with the real clock."""
        return self._now + _counted(self._real() - self._read_at)

    @property
    def paused(self) -> float:
        """Seconds of all pauses so far."""
        return self._paused

    def call_later(self, delay: float, fn: Callable[..., object], *args: Any) -> Timer:
        """Call ``fn`` after ``delay`` seconds awake."""
        return self.call_at(self.now() + delay, fn, *args)

    def call_roughly(self, delay: float, fn: Callable[..., object], *args: Any) -> Timer:
        """Call ``fn`` after ``delay`` seconds awake, or up to an eighth of that later.

        Such calls come together on a common grid of times. A thousand watches then wake the event loop ten times a
        second, and not a thousand times.
        """
        grid = min(2.0 ** math.floor(math.log2(delay / 8)), COARSEST) if delay > 0 else COARSEST
        return self.call_at(math.ceil((self.now() + delay) / grid) * grid, fn, *args)

    def call_at(self, when: float, fn: Callable[..., object], *args: Any) -> Timer:
        """Call ``fn`` when :meth:`now` has reached ``when``. Rounding never makes the call too early."""
        timer = Timer(when, fn, args)
        number = next(self._order)
        heapq.heappush(self._heap, (timer.when, number, timer))
        if number % _COMPACT_EVERY == 0:
            self._compact()
        if self._loop is not None and timer.when < self._wakes_at:
            self._sleep()
        return timer

    def _compact(self) -> None:
        """Drop cancelled timers: many short jobs with a long ``job_timeout`` would fill the heap with them."""
        self._heap = [entry for entry in self._heap if entry[2].fn is not None]
        heapq.heapify(self._heap)

    def advance(self) -> None:
        """Count the time since the last look, and call the timers that are due."""
        elapsed = self._real() - self._read_at
        counted = _counted(elapsed)
        self._read_at += elapsed
        self._now += counted
        if elapsed > counted:
            missed = elapsed - counted
            self._paused += missed
            extra = log_fields("held_up", seconds=round(missed, 3))
            text = "the supervisor was held up for %.1f s; deadlines do not count this time"
            _logger.warning(text, missed, extra=extra)
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
            # If one call fails, the other calls must still be made.
            _logger.exception("the function of a deadline failed: %r", fn, extra=log_fields("internal_error"))

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
    """Return the part of the time since the last look that counts as awake.

    A pause does not count, not even its start: data that arrived in the pause must be read first.
    """
    return elapsed if elapsed <= LONGEST_SLEEP + TOLERANCE else 0.0
