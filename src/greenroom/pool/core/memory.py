"""Decisions about a process's memory, and the memory that a job costs. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["FOR_WARNINGS", "LONGEST", "SHORTEST", "MemoryPolicy", "MemoryVerdict", "SessionCost"]

_FASTEST_GROWTH = 2048.0
"""Upper bound, in MiB/s, for the growth by one thread that touches fresh memory."""
SHORTEST, LONGEST = 0.01, 1.0
"""Limits of the seconds between two readings of a process with a limit."""
FOR_WARNINGS = 5.0
"""Seconds between two readings of a process without a limit: a warning may come late."""


class MemoryVerdict(Enum):
    FINE = "fine"
    CONFIRM = "confirm"
    """The process may have come close to a limit by itself. PSS must be read now."""
    RECHECK = "recheck"
    """Only the end of another process can have raised the PSS. It is read when there is CPU time to spare."""
    WARN = "warn"
    KILL = "kill"


@dataclass(slots=True)
class MemoryPolicy:
    """Limits of one process. Cheap readings (RSS, page faults) decide if the costly reading (PSS) is needed."""

    warn_mb: float | None
    limit_mb: float | None
    inherited_mb: float = 0.0
    """Memory that the process has from its zygote."""
    used_mb: float = 0.0
    """Memory that was compared with the limits at the latest PSS reading."""
    _shared_mb: float = 0.0
    """Part of the RSS that was not the process's own at the latest PSS reading."""
    _confirmed: tuple[float, float] | None = None
    """RSS and ``faulted_mb`` at the latest PSS reading."""
    _warned: bool = False

    def is_far(self, rss_mb: float) -> bool:
        """Return true if the RSS alone shows that the process is far from its limits."""
        threshold = self._threshold()
        return threshold is None or rss_mb < 0.9 * threshold

    def judge_cheap(self, rss_mb: float, faulted_mb: float) -> MemoryVerdict:
        """Judge the cheap readings. ``faulted_mb`` is one page for each page fault of the process.

        A write makes an inherited page the process's own without a change in RSS, but with a page fault. So the process
        has at most its RSS, less the inherited pages for which there was no fault. Since the latest PSS reading, it has
        taken at most one page for each fault, and the growth of its RSS: a huge page comes with one fault. Both bounds
        count a new page twice.
        """
        threshold = self._threshold()
        inherited = min(max(self.inherited_mb - faulted_mb, 0.0), rss_mb)
        if threshold is None or rss_mb - inherited < 0.9 * threshold:
            self._shared_mb = inherited  # for next_look
            return MemoryVerdict.FINE
        if self._confirmed is None:
            return MemoryVerdict.CONFIRM
        rss_then, faulted_then = self._confirmed
        taken = faulted_mb - faulted_then + max(rss_mb - rss_then, 0.0)
        return MemoryVerdict.CONFIRM if self.used_mb + taken >= 0.9 * threshold else MemoryVerdict.RECHECK

    def judge_pss(self, rss_mb: float, pss_mb: float, faulted_mb: float) -> MemoryVerdict:
        """Judge a costly reading.

        PSS divides a page among the processes that share it, and rises when one of them ends. If the zygote and all
        other children end, PSS charges the last process with the whole image, even untouched pages. An inherited page
        becomes the process's own only by a write, and the write causes a page fault. So the inherited memory, less one
        page for each fault, is never counted.
        """
        self._shared_mb = max(rss_mb - pss_mb, min(self.inherited_mb - faulted_mb, rss_mb), 0.0)
        self.used_mb = rss_mb - self._shared_mb
        self._confirmed = (rss_mb, faulted_mb)
        if self.limit_mb is not None and self.used_mb > self.limit_mb:
            return MemoryVerdict.KILL
        if self.warn_mb is not None and self.used_mb > self.warn_mb and not self._warned:
            self._warned = True
            return MemoryVerdict.WARN
        return MemoryVerdict.FINE

    def next_look(self, rss_mb: float) -> float:
        """Return the seconds until the next reading. The fastest growth is then seen before twice the limit."""
        if self.limit_mb is None:
            return FOR_WARNINGS
        headroom = 2 * self.limit_mb - (rss_mb - self._shared_mb)
        return min(max(headroom / _FASTEST_GROWTH / 4, SHORTEST), LONGEST)

    def _threshold(self) -> float | None:
        warn = None if self._warned else self.warn_mb
        limits = [value for value in (warn, self.limit_mb) if value is not None]
        return min(limits, default=None)


_REMEMBERED = 64
"""Number of ended jobs that count: enough for a percentile, few enough to follow changes of the app."""
_PERCENTILE = 0.9


@dataclass(slots=True)
class SessionCost:
    """Samples of the private memory of processes, in MiB, and the cost of a job by these samples."""

    idle_mb: float | None = None
    """Latest sample of an idle process. Any job costs at least this."""
    _running: dict[str, float] = field(default_factory=dict)
    _peaks: dict[str, float] = field(default_factory=dict)
    _ended: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def sampled_idle(self, private_mb: float) -> None:
        self.idle_mb = private_mb

    def sampled_running(self, process_id: str, private_mb: float) -> None:
        self._running[process_id] = private_mb
        self._peaks[process_id] = max(private_mb, self._peaks.get(process_id, 0.0))

    def ended(self, process_id: str) -> None:
        self._running.pop(process_id, None)
        peak = self._peaks.pop(process_id, None)
        if peak is not None:
            self._ended.append(peak)

    @property
    def session_mb(self) -> float | None:
        """Cost of a job in MiB: the 90th percentile of the jobs' peaks. ``None`` before the first sample."""
        peaks = sorted([*self._ended, *self._peaks.values()])
        if not peaks:
            return self.idle_mb
        return max(peaks[min(int(len(peaks) * _PERCENTILE), len(peaks) - 1)], self.idle_mb or 0.0)

    def expected_growth_mb(self, unsampled: int) -> float:
        """Return the MiB that jobs will still take. ``unsampled`` is the number of jobs without a sample."""
        cost = self.session_mb or 0.0
        return sum(max(cost - now, 0.0) for now in self._running.values()) + cost * max(unsampled, 0)

    @property
    def sampled(self) -> int:
        """Number of running jobs that have a sample."""
        return len(self._running)
