"""Allowance of log output for each process, and for all processes of a pool."""

from __future__ import annotations

from dataclasses import dataclass

from ...token_bucket import TokenBucket

__all__ = ["LogAllowance"]

KIB = 1024
PROCESS_LINES, PROCESS_LINES_AT_ONCE = 200.0, 1000.0
PROCESS_BYTES, PROCESS_BYTES_AT_ONCE = 64.0 * KIB, 1024.0 * KIB
POOL_LINES, POOL_LINES_AT_ONCE = 2000.0, 5000.0
POOL_BYTES, POOL_BYTES_AT_ONCE = 1024.0 * KIB, 8192.0 * KIB


@dataclass(frozen=True, slots=True)
class LogAllowance:
    """LogAllowance of lines and bytes for log output. So one process cannot flood the log or fill its disk."""

    lines: TokenBucket
    bytes: TokenBucket

    @classmethod
    def of_pool(cls) -> LogAllowance:
        return cls(TokenBucket(POOL_LINES, POOL_LINES_AT_ONCE), TokenBucket(POOL_BYTES, POOL_BYTES_AT_ONCE))

    def of_process(self) -> LogAllowance:
        """Return the allowance of one process, which also takes from this allowance."""
        lines = TokenBucket(PROCESS_LINES, PROCESS_LINES_AT_ONCE, self.lines)
        return LogAllowance(lines, TokenBucket(PROCESS_BYTES, PROCESS_BYTES_AT_ONCE, self.bytes))

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
