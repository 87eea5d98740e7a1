"""What a session costs in memory, by what sessions have cost so far. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

__all__ = ["SessionCost"]

_REMEMBERED = 64
"""Ended sessions: enough for a percentile, few enough to follow an app that changes."""
_PERCENTILE = 0.9


@dataclass(slots=True)
class SessionCost:
    """Takes samples of the memory (MiB) that processes have to themselves."""

    idle_mb: float | None = None
    """The latest sample of an idle process: what any session costs at the least."""
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
        """What the dearest tenth of sessions costs at the least; ``None`` before anything was sampled."""
        peaks = sorted([*self._ended, *self._peaks.values()])
        if not peaks:
            return self.idle_mb
        return max(peaks[min(int(len(peaks) * _PERCENTILE), len(peaks) - 1)], self.idle_mb or 0.0)

    def expected_growth_mb(self, unsampled: int) -> float:
        """What running sessions will still take, by this cost; ``unsampled`` of them have not been looked at."""
        cost = self.session_mb or 0.0
        return sum(max(cost - now, 0.0) for now in self._running.values()) + cost * max(unsampled, 0)

    @property
    def sampled(self) -> int:
        """How many running sessions have been looked at."""
        return len(self._running)
