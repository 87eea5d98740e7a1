"""How many processes should wait, and how many should be warming. Pure: time is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Demand", "expected_wait", "forks_needed"]

_HALF_LIFE = 10.0
"""Seconds in which half of the claim rate's memory fades: a burst is remembered, not for ever."""
_SAFETY = 2.0
"""Claims come in clumps: hold twice what the mean rate would use up during one refill."""


@dataclass(slots=True)
class Demand:
    """What the pool has seen: how fast processes are claimed, and how long one takes to replace."""

    claim_rate: float = 0.0
    """Claims per second, exponentially weighted."""
    refill_seconds: float = 0.0
    """From the request for a fork until the process is idle, exponentially weighted."""
    session_seconds: float = 0.0
    """How long a session lasts, exponentially weighted."""
    _rated_at: float = 0.0

    def claimed(self, now: float) -> None:
        self._fade(now)
        self.claim_rate += math.log(2) / _HALF_LIFE

    def refilled(self, seconds: float) -> None:
        self.refill_seconds = _weighted(self.refill_seconds, seconds)

    def session_ended(self, seconds: float) -> None:
        self.session_seconds = _weighted(self.session_seconds, seconds)

    def idle_target(self, now: float, floor: int, ceiling: int) -> int:
        """The idle processes to hold: the floor, and what is expected to be claimed during a refill."""
        self._fade(now)
        expected = math.floor(self.claim_rate * self.refill_seconds * _SAFETY)
        return min(max(floor + expected, floor), max(ceiling, floor))

    def _fade(self, now: float) -> None:
        elapsed = max(now - self._rated_at, 0.0)
        self.claim_rate *= 0.5 ** (elapsed / _HALF_LIFE)
        self._rated_at = now


def _weighted(before: float, new: float) -> float:
    return new if before == 0 else 0.7 * before + 0.3 * new


def forks_needed(*, idle_target: int, idle: int, waiting: int, warming: int, outgoing: int, concurrent: int) -> int:
    """How many forks to request now: for those who wait and for the idle target, within the bound.

    ``outgoing`` are warming, too, but with code that is being replaced: they only count in the bound.
    """
    missing = waiting + idle_target - idle - warming
    return max(0, min(missing, concurrent - warming - outgoing))


def expected_wait(*, idle: int, waiting: int, refill_seconds: float, concurrent: int, delay: float = 0.0) -> float:
    """Seconds that a session which came now would wait for a process, by what one has taken of late; 0 if one is idle.

    ``refill_seconds`` is what each takes where ``concurrent`` are made at the same time, the first of them after
    ``delay``.
    """
    if idle > waiting:
        return 0.0
    return delay + math.ceil((waiting - idle + 1) / concurrent) * refill_seconds
