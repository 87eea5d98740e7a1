"""Backoff and circuit breaker for processes that do not become warm. Pure, with time as an argument."""

from __future__ import annotations

from dataclasses import dataclass

from ...backoff import backoff

__all__ = ["Breaker"]

_FREE_FAILURES = 3
"""Number of failures in a row without a delay. The cause of so few failures may lie outside the app."""
_OPENS_AT = 6
"""Number of failures in a row that opens the breaker."""
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 30.0


@dataclass(slots=True)
class Breaker:
    """Counter of failures in a row, which delays attempts and finally rejects jobs.

    - Up to 3 failures: many attempts at once, up to a bound.
    - From 4 failures: one attempt at a time, after a delay that doubles from 0.2 s to 30 s.
    - From 6 failures (open): also, a job that would have to wait is rejected.

    A success resets the counter.
    """

    failures: int = 0
    cause: str | None = None
    """Cause of the last failure."""
    _retry_at: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.failures >= _OPENS_AT

    @property
    def is_cautious(self) -> bool:
        """True if attempts are made one at a time."""
        return self.failures > _FREE_FAILURES

    def failed(self, now: float, cause: str) -> None:
        self.failures += 1
        self.cause = cause
        if self.is_cautious:
            attempt = self.failures - _FREE_FAILURES
            self._retry_at = now + backoff(attempt, first=_FIRST_DELAY, longest=_LONGEST_DELAY)

    def explained(self, cause: str) -> None:
        """Replace the cause of the last counted failure, of which more is known now."""
        if self.failures:
            self.cause = cause

    def succeeded(self) -> None:
        self.failures, self.cause, self._retry_at = 0, None, 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until the next attempt may be made; 0 if it may be made now."""
        return max(self._retry_at - now, 0.0) if self.is_cautious else 0.0

    def tries_allowed(self, now: float, in_progress: int, bound: int) -> int:
        """Return the number of attempts that may be in progress now."""
        if not self.is_cautious:
            return bound
        return in_progress if self.wait(now) > 0 else max(in_progress, 1)
