"""Token buckets, each with a rate and a burst, and allowances for log output. Pure except for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Allowance", "Budget"]

KIB = 1024
PROCESS_LINES, PROCESS_LINES_AT_ONCE = 200.0, 1000.0
PROCESS_BYTES, PROCESS_BYTES_AT_ONCE = 64.0 * KIB, 1024.0 * KIB
POOL_LINES, POOL_LINES_AT_ONCE = 2000.0, 5000.0
POOL_BYTES, POOL_BYTES_AT_ONCE = 1024.0 * KIB, 8192.0 * KIB


@dataclass(slots=True)
class Budget:
    """Token bucket: ``rate`` tokens per second, at most ``burst``. With a parent, each token is taken from both."""

    rate: float
    burst: float
    parent: Budget | None = None
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


@dataclass(frozen=True, slots=True)
class Allowance:
    """Allowance of lines and bytes for log output. So one process cannot flood the log or fill its disk."""

    lines: Budget
    bytes: Budget

    @classmethod
    def of_pool(cls) -> Allowance:
        return cls(Budget(POOL_LINES, POOL_LINES_AT_ONCE), Budget(POOL_BYTES, POOL_BYTES_AT_ONCE))

    def of_process(self) -> Allowance:
        """Return the allowance of one process, which also takes from this allowance."""
        lines = Budget(PROCESS_LINES, PROCESS_LINES_AT_ONCE, self.lines)
        return Allowance(lines, Budget(PROCESS_BYTES, PROCESS_BYTES_AT_ONCE, self.bytes))

    def room(self) -> int:
        """Return the number of short lines that may be written now."""
        return int(self.lines.left()) if self.bytes.left() >= 1 else 0

    def take(self, size: int) -> bool:
        """Take one line of ``size`` bytes, and return true. Return false, and take nothing, if there is no room."""
        if self.lines.left() < 1 or self.bytes.left() < size:
            return False
        self.lines.spend(1)
        self.bytes.spend(size)
        return True

    def charge(self, size: int) -> None:
        """Take ``size`` bytes, even if there are too few now. Then there is no room until the bucket refills."""
        self.bytes.spend(size)
