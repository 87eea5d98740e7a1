"""Stall guard: no job is begun that has waited while the worker stood still. Its client may have given up.

A worker stands still when it is stopped or frozen, when its machine sleeps, or when something blocks its event loop.
Meanwhile connections wait in the kernel, and bytes in sockets. When the worker goes on, nothing in them tells how old
they are. So each job comes with a number: the count of the stalls that were surely over before the job was sent. If
the count has grown, the job may have waited, and is rejected (``stalled``).

A stall is over when the event loop has polled all sockets since, and a short time more: see :data:`TURNS` and
:data:`GRACE`. So whatever is read from a socket until then may have waited, and whatever is read later has not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ..log_fields import log_fields

__all__ = ["StallGuard", "Stalls"]

_logger = logging.getLogger("greenroom")

INTERVAL = 0.1
"""Seconds between two looks at the clock."""
LONGEST = 0.5
"""Seconds between two looks, above which the worker stood still."""
TURNS = 8
"""Turns of the event loop after a stall, until the stall is over. asyncio reads what waits in all sockets in the first
or second of them: sockets come before timers, and after what was ready before. A source that gets its jobs by a task of
its own has the rest."""
GRACE = 0.1
"""Least seconds after a stall, until the stall is over."""


class Stalls:
    """Count of stalls, from the times at which the event loop was seen to run. Pure: each call gets the time."""

    def __init__(self, now: float) -> None:
        self.count = 0
        """Stalls so far."""
        self.over = 0
        """Stalls that are over: a job that comes now was sent after them."""
        self._seen = now
        self._woken = now
        self._turns = 0

    def see(self, now: float) -> float | None:
        """Note that the event loop runs. Return the length (seconds) of the stall that has just ended, or ``None``."""
        gap, self._seen = now - self._seen, now
        if gap <= LONGEST:
            return None
        self.count += 1
        self._woken, self._turns = now, 0
        return gap

    def turn(self, now: float) -> float | None:
        """Note that a turn of the event loop has begun after a stall.

        Return the seconds until the next turn that counts; ``None`` if all stalls are over.
        """
        self._turns += 1
        if self._turns < TURNS:
            return 0.0
        left = self._woken + GRACE - now
        if left > 0:
            return left
        self.over = self.count
        return None


def _boot_time() -> float:
    """Return the seconds since the boot. The wall clock can be set, and CLOCK_MONOTONIC stops in a suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class StallGuard:
    """Guard of one worker, from :meth:`start` to :meth:`stop`. Before and after that, there are no stalls."""

    def __init__(self, clock: Callable[[], float] = _boot_time) -> None:
        self._clock = clock
        self._stalls = Stalls(clock())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_settling = False

    def start(self) -> None:
        """Watch the running event loop, from now on."""
        self._loop = asyncio.get_running_loop()
        self._stalls = Stalls(self._clock())
        self._beat()

    def stop(self) -> None:
        """Watch no more. Harmless if the guard was not started."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()

    @property
    def count(self) -> int:
        """Number of stalls so far, one included that has just ended."""
        self._look()
        return self._stalls.count

    @property
    def over(self) -> int:
        """Number of stalls that are over. Whatever is read from a socket now was sent after them."""
        return self._stalls.over

    def _beat(self) -> None:
        self._look()
        if self._loop is not None:
            self._timer = self._loop.call_later(INTERVAL, self._beat)

    def _look(self) -> None:
        # Not only the timer looks: in the first turns after a stall, a job can come before the timer.
        if self._loop is None:
            return
        seconds = self._stalls.see(self._clock())
        if seconds is None:
            return
        text = "the worker stood still for %.1f s. Jobs that have waited meanwhile are rejected (stalled)"
        _logger.warning(text, seconds, extra=log_fields("worker_stalled", seconds=round(seconds, 3)))
        if not self._is_settling:
            self._is_settling = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if self._loop is None:
            return
        self._look()
        left = self._stalls.turn(self._clock())
        if left is None:
            self._is_settling = False
        elif left > 0:
            self._loop.call_later(left, self._turn)
        else:
            self._loop.call_soon(self._turn)
