"""What children left behind when no zygote was there to bury it.

Orphans below a lost zygote, or below a spawned process, come to this process, among the children
that it may have for reasons of its own. Ours carry the pool's mark (:mod:`greenroom.system.mark`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable

from ..system import mark, proc

__all__ = ["StrayKiller"]

_PATIENCE = 5.0
_INTERVAL = 0.005


class StrayKiller:
    """Kills and reaps the strays of one pool. ``known`` gives the pids of its own direct children."""

    def __init__(self, token: str, known: Callable[[], set[int]]) -> None:
        self._token = token
        self._known = known
        self._killed: set[int] = set()

    def sweep(self, then: Callable[[int], None], *, _until: float = 0.0, _count: int = 0) -> None:
        """Kill what there is; when it is gone, call ``then`` with how many there were."""
        until = _until or time.monotonic() + _PATIENCE
        try:
            found = self._find()
        except OSError:  # no fd to look with: in a moment, perhaps
            found, is_seen = [], False
        else:
            is_seen = True
        _count += sum(1 for pid in set(found) - self._killed if _is_living(pid))
        for pid in found:
            self._end(pid)
        if (found or not is_seen) and time.monotonic() < until:
            # Dying strays pass on strays of their own, so look until a look finds none.
            again = lambda: self.sweep(then, _until=until, _count=_count)  # noqa: E731
            asyncio.get_running_loop().call_later(_INTERVAL, again)
        else:
            then(_count)

    def _find(self) -> list[int]:
        known = self._known()
        return [pid for pid in proc.children(os.getpid()) if pid not in known and self.may_own(pid)]

    def may_own(self, pid: int) -> bool:
        """Whether a child of this process was started by the pool. Raises ``OSError`` when out of fds."""
        if pid in self._killed:
            return True
        try:
            return mark.is_on(pid, self._token)
        except OSError as error:
            if proc.is_out_of_fds(error):
                raise
            return False  # gone by now

    def _end(self, pid: int) -> None:
        """Kill it, or reap it if it is dead. It is a child of this process, so its pid is its own until then."""
        self._killed.add(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                self._killed.discard(pid)
        except (ChildProcessError, ProcessLookupError):
            self._killed.discard(pid)


def _is_living(pid: int) -> bool:
    """Rather than a zombie, which is only to be reaped."""
    try:
        return proc.stat(pid).state != "Z"
    except OSError:
        return False
