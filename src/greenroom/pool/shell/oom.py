"""Distinction between a kill by the kernel's OOM killer and any other SIGKILL.

The kernel counts its OOM kills, and the count is cheap to read. But the count includes processes that are not the
pool's. So after the count has grown, the kernel's log is searched for the pid, if the log is readable.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ...system import oom

__all__ = ["OomCounter"]

_REMEMBERED = 10.0
"""Seconds for which an OOM kill is remembered: its victim dies only after the kernel has freed its memory."""


class OomCounter:
    """Counter of OOM kills that do not explain a death yet. Tests pass in other sources."""

    def __init__(
        self,
        read: Callable[[], int] = oom.kills,
        names_victim: Callable[[int], bool | None] = oom.names_victim,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._names_victim = names_victim
        self._now = now
        self._seen = self._current()
        self._strikes: deque[float] = deque()

    def look(self) -> None:
        """Note new kills. Call this about every second, so that an old kill is not taken for a new one."""
        current, now = self._current(), self._now()
        self._strikes.extend(now for _ in range(current - self._seen))
        self._seen = max(current, self._seen)
        while self._strikes and self._strikes[0] < now - _REMEMBERED:
            self._strikes.popleft()

    def has_struck(self, pid: int) -> bool:
        """Return true if an OOM kill explains a death by SIGKILL just now. Each kill explains only one death."""
        self.look()
        if not self._strikes or self._names_victim(pid) is False:
            return False
        self._strikes.popleft()
        return True

    def _current(self) -> int:
        try:
            return self._read()
        except OSError:
            return 0  # the kernel shows no count here
