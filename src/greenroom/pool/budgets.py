"""Token buckets: what may be written to the log in a second, and at once. Pure but for the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass

__all__ = ["Allowance", "Budget"]

KIB = 1024
PROCESS_LINES, PROCESS_LINES_AT_ONCE = 200.0, 1000.0
PROCESS_BYTES, PROCESS_BYTES_AT_ONCE = 64.0 * KIB, 1024.0 * KIB
POOL_LINES, POOL_LINES_AT_ONCE = 2000.0, 5000.0
POOL_BYTES, POOL_BYTES_AT_ONCE = 1024.0 * KIB, 8192.0 * KIB


@dataclass(slots=True)
class Budget:
    """A token bucket. With a parent, each token is taken from both."""

    rate: float
    burst: float
    parent: Budget | None = None
    _tokens: float | None = None
    """Less than none after a charge. ``None``: not used yet."""
    _at: float = 0.0

    def take(self, tokens: float = 1.0) -> bool:
        """Take tokens, if all of them are there."""
        if self.left() < tokens:
            return False
        self.spend(tokens)
        return True

    def left(self) -> float:
        """Return the number of tokens that can be taken now."""
        mine = self._filled()
        return mine if self.parent is None else min(mine, self.parent.left())

    def spend(self, tokens: float) -> None:
        """Take tokens, also those that are not there yet."""
        self._tokens = self._filled() - tokens
        if self.parent is not None:
            self.parent.spend(tokens)

    def _filled(self) -> float:
        now = time.monotonic()
        if self._tokens is None:
            self._tokens = self.burst
        else:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        return self._tokens


@dataclass(frozen=True, slots=True)
class Allowance:
    """Lines and bytes that may be written. One flooding process must not fill the log, or its disk."""

    lines: Budget
    bytes: Budget

    @classmethod
    def of_pool(cls) -> Allowance:
        return cls(Budget(POOL_LINES, POOL_LINES_AT_ONCE), Budget(POOL_BYTES, POOL_BYTES_AT_ONCE))

    def of_process(self) -> Allowance:
        """Return the allowance of one process, which draws on this one."""
        lines = Budget(PROCESS_LINES, PROCESS_LINES_AT_ONCE, self.lines)
        return Allowance(lines, Budget(PROCESS_BYTES, PROCESS_BYTES_AT_ONCE, self.bytes))

    def room(self) -> int:
        """Return how many lines may be written now, if they are short."""
        return int(self.lines.left()) if self.bytes.left() >= 1 else 0

    def take(self, size: int) -> bool:
        """Take one line of this many bytes, or nothing."""
        if self.lines.left() < 1 or self.bytes.left() < size:
            return False
        self.lines.spend(1)
        self.bytes.spend(size)
        return True

    def charge(self, size: int) -> None:
        """Take this many bytes, also those that are not there yet: there is no room until they are."""
        self.bytes.spend(size)
