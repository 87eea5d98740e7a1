"""Token bucket: a bound on a rate, which lets short bursts through. Pure except for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["TokenBucket"]


@dataclass(slots=True)
class TokenBucket:
    """Token bucket: ``rate`` tokens per second, at most ``burst``. With a parent, each token is taken from both."""

    rate: float
    burst: float
    parent: TokenBucket | None = None
    now: Callable[[], float] = time.monotonic
    _tokens: float | None = None
    """Tokens at the time ``_at``. Negative after a charge, ``None`` before the first use."""
    _at: float = 0.0

    def take(self, tokens: float = 1.0) -> bool:
        """Take tokens, and return true. Return false, and take none, if there are too few."""
        if self.left() < tokens:
            return False
        self.spend(tokens)
        return True

    def left(self) -> float:
        """Return the number of tokens that can be taken now."""
        mine = self._filled()
        return mine if self.parent is None else min(mine, self.parent.left())

    def spend(self, tokens: float) -> None:
        """Take tokens, even if there are too few now."""
        self._tokens = self._filled() - tokens
        if self.parent is not None:
            self.parent.spend(tokens)

    def _filled(self) -> float:
        now = self.now()
        if self._tokens is None:
            self._tokens = self.burst
        else:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        return self._tokens
