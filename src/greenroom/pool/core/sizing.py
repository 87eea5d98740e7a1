"""Numbers of processes: how many to keep idle, and how many to warm at once. Pure, with time as an argument."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Crowd", "Demand", "expected_wait", "forks_needed"]

_HALF_LIFE = 10.0
"""Seconds after which an old claim counts half in the claim rate. So a burst counts for a while only."""
_SAFETY = 2.0
"""Factor for uneven claims. The pool holds twice the number that the mean rate claims during one refill."""


@dataclass(slots=True)
class Demand:
    """Demand so far: the rate of claims, and the time to replace a process."""

    claim_rate: float = 0.0
    """Claims per second at the latest claim, exponentially weighted."""
    refill_seconds: float = 0.0
    """Seconds from the request for a fork until the process is idle, exponentially weighted."""
    session_seconds: float = 0.0
    """Seconds that a job runs, exponentially weighted."""
    _rated_at: float = 0.0

    def claimed(self, now: float) -> None:
        self.claim_rate = self._faded(now) + math.log(2) / _HALF_LIFE
        self._rated_at = now

    def refilled(self, seconds: float) -> None:
        self.refill_seconds = _weighted(self.refill_seconds, seconds)

    def session_ended(self, seconds: float) -> None:
        self.session_seconds = _weighted(self.session_seconds, seconds)

    def idle_target(self, now: float, floor: int, ceiling: int) -> int:
        """Return the number of idle processes to hold: the floor, and the claims expected during one refill."""
        if not self.claim_rate:
            return floor
        expected = math.floor(self._faded(now) * self.refill_seconds * _SAFETY)
        return min(max(floor + expected, floor), max(ceiling, floor))

    def _faded(self, now: float) -> float:
        # Only a claim stores this rate. If each look at the pool did, rounding would change later decisions.
        return float(self.claim_rate * 0.5 ** (max(now - self._rated_at, 0.0) / _HALF_LIFE))


def _weighted(before: float, new: float) -> float:
    return new if before == 0 else 0.7 * before + 0.3 * new


def forks_needed(*, idle_target: int, idle: int, waiting: int, warming: int, outgoing: int, concurrent: int) -> int:
    """Return the number of forks to request now, for waiting jobs and for the idle target, within the bound.

    ``outgoing`` processes also become warm, but are not for jobs. They only count in the bound.
    """
    missing = waiting + idle_target - idle - warming
    return max(0, min(missing, concurrent - warming - outgoing))


def expected_wait(*, idle: int, waiting: int, refill_seconds: float, concurrent: int, delay: float = 0.0) -> float:
    """Return the seconds that a new job would wait for a process; 0 if an idle process is left for the job.

    Each refill takes ``refill_seconds`` and makes ``concurrent`` processes. The first refill begins after ``delay``.
    """
    if idle > waiting:
        return 0.0
    return delay + math.ceil((waiting - idle + 1) / concurrent) * refill_seconds


_FEWEST_SUCCESSES = 2
_MOST_SUCCESSES = 64


@dataclass(slots=True)
class Crowd:
    """Bound of the crowd: the processes that become warm at the same time.

    A process that misses ``prewarm_timeout`` halves the bound. Some processes that keep the time raise the bound by
    one. Each further halving doubles the number of these successes. So a crowd that is known to be too large is not
    tried again and again.
    """

    allowed: int | None = None
    """Number of processes that may become warm at once; ``None`` without a bound of its own."""
    _needed: int = _FEWEST_SUCCESSES
    _kept: int = 0
    _old: frozenset[str] = frozenset()
    """Processes of the crowd at the last change. The results of these processes say nothing about the new size."""

    def bounded(self, bound: int) -> int:
        """Return the number of processes that may become warm at once: ``bound`` or fewer."""
        return bound if self.allowed is None else min(self.allowed, bound)

    def missed(self, process: str, crowd: Iterable[str], bound: int) -> bool:
        """Note that a process of a crowd has missed its time. Return true if fewer are allowed from now on."""
        present = frozenset(crowd) | {process}
        if process in self._old or len(present) == 1:
            return False  # counted already; or the process was alone, and fewer than one cannot be
        if self.allowed is not None:
            self._needed = min(2 * self._needed, _MOST_SUCCESSES)
        self.allowed = max(min(len(present), self.bounded(bound)) // 2, 1)
        self._old, self._kept = present, 0
        return True

    def kept(self, process: str, crowd: Iterable[str], bound: int) -> bool:
        """Note that a process of a crowd has become warm in time. Return true if more are allowed from now on."""
        if self.allowed is None or process in self._old:
            return False
        self._kept += 1
        if self._kept < self._needed:
            return False
        self._kept, self._old = 0, frozenset(crowd)
        if self.allowed >= bound:
            self.allowed, self._needed, self._old = None, _FEWEST_SUCCESSES, frozenset()
            return False
        self.allowed += 1
        return True
