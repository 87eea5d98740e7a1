"""Backoff and circuit breaker for processes that do not become warm. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Breaker"]

_FREE_FAILURES = 3
"""This many in a row cost no delay: what killed them need not be the app."""
_OPENS_AT = 6
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 30.0


@dataclass(slots=True)
class Breaker:
    """Counts failures in a row; says when the next try may be made, and when to stop hoping.

    Closed: any number of tries at once. After some failures: one try at a time, after a delay that
    doubles. Open: the same, and whoever asks for a session is turned down instead of made to wait.
    A success closes it.
    """

    failures: int = 0
    cause: str | None = None
    """What the last failure was."""
    _retry_at: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.failures >= _OPENS_AT

    @property
    def is_cautious(self) -> bool:
        """Whether tries are made one at a time."""
        return self.failures > _FREE_FAILURES

    def failed(self, now: float, cause: str) -> None:
        self.failures += 1
        self.cause = cause
        if self.is_cautious:
            exponent = min(self.failures - _FREE_FAILURES - 1, 16)
            self._retry_at = now + min(_FIRST_DELAY * 2**exponent, _LONGEST_DELAY)

    def explained(self, cause: str) -> None:
        """More is known now of the last failure that was counted."""
        if self.failures:
            self.cause = cause

    def succeeded(self) -> None:
        self.failures, self.cause, self._retry_at = 0, None, 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next try may be made; 0 for now."""
        return max(self._retry_at - now, 0.0) if self.is_cautious else 0.0

    def tries_allowed(self, now: float, in_progress: int, bound: int) -> int:
        """How many tries may be in progress at this moment."""
        if not self.is_cautious:
            return bound
        return in_progress if self.wait(now) > 0 else max(in_progress, 1)
