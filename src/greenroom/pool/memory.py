"""How much memory a process may have, and when to look next. Pure: figures in, a decision out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["LONGEST", "SHORTEST", "MemoryPolicy", "MemoryVerdict"]

_FASTEST_GROWTH = 2048.0
"""MiB per second: what one thread can touch in fresh memory, with room to spare."""
SHORTEST, LONGEST = 0.01, 1.0
"""Seconds between two readings."""
_RECHECK = 0.5


class MemoryVerdict(Enum):
    FINE = "fine"
    CONFIRM = "confirm"
    """Resident memory is large enough to matter, but pages shared with the zygote count in it: ask for PSS."""
    WARN = "warn"
    KILL = "kill"


@dataclass(slots=True)
class MemoryPolicy:
    """Judges cheap readings (RSS), and asks for the costly one (PSS) only where it could matter."""

    warn_mb: float | None
    limit_mb: float | None
    _shared_mb: float = 0.0
    """How much of the RSS was others' share when PSS was last read."""
    _confirmed_at: float = float("-inf")
    _warned: bool = False

    def judge_rss(self, rss_mb: float, now: float) -> MemoryVerdict:
        threshold = self._threshold()
        if threshold is None or rss_mb < 0.9 * threshold:
            return MemoryVerdict.FINE
        # Shared pages turn private as they are written to, with no change in RSS: look again in a while.
        if rss_mb - self._shared_mb < 0.9 * threshold and now - self._confirmed_at < _RECHECK:
            return MemoryVerdict.FINE
        return MemoryVerdict.CONFIRM

    def judge_pss(self, rss_mb: float, pss_mb: float, now: float) -> MemoryVerdict:
        self._shared_mb = max(rss_mb - pss_mb, 0.0)
        self._confirmed_at = now
        if self.limit_mb is not None and pss_mb > self.limit_mb:
            return MemoryVerdict.KILL
        if self.warn_mb is not None and pss_mb > self.warn_mb and not self._warned:
            self._warned = True
            return MemoryVerdict.WARN
        return MemoryVerdict.FINE

    def next_look(self, rss_mb: float) -> float:
        """Seconds until the next reading: soon enough to see the fastest growth before twice the limit."""
        if self.limit_mb is None:
            return LONGEST
        headroom = 2 * self.limit_mb - (rss_mb - self._shared_mb)
        return min(max(headroom / _FASTEST_GROWTH / 4, SHORTEST), LONGEST)

    def _threshold(self) -> float | None:
        warn = None if self._warned else self.warn_mb
        limits = [value for value in (warn, self.limit_mb) if value is not None]
        return min(limits, default=None)
