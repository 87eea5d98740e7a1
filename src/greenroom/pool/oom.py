"""Telling the kernel's OOM killer from anybody else's SIGKILL.

It counts its victims, and that costs nothing to watch; but others' victims count as well. So where a
count has gone up, the kernel's log is asked for the name, if it may be read.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ..system import oom

__all__ = ["OomCounter"]

_REMEMBERED = 10.0
"""Seconds: the victim of an OOM kill dies when its memory has been taken down, which takes a while."""


class OomCounter:
    """Counts OOM kills that no death has been put down to yet. The sources are passed in for tests."""

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
        """Note new kills. To be called about every second, so that an old one is not taken for new."""
        current, now = self._current(), self._now()
        self._strikes.extend(now for _ in range(current - self._seen))
        self._seen = max(current, self._seen)
        while self._strikes and self._strikes[0] < now - _REMEMBERED:
            self._strikes.popleft()

    def has_struck(self, pid: int) -> bool:
        """Whether a death by SIGKILL just now is to be put down to the OOM killer; each kill explains one."""
        self.look()
        if not self._strikes or self._names_victim(pid) is False:
            return False
        self._strikes.popleft()
        return True

    def _current(self) -> int:
        try:
            return self._read()
        except OSError:
            return 0  # then it cannot be told
