"""Reaping what nobody else will: orphans that come to the worker as PID 1, or as a subreaper.

In a container without an init the worker is PID 1, and every orphan becomes its child. So do the processes
that a shell script has started before it gave way to the worker by ``exec``. Dead, they would stay zombies.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..system import proc

__all__ = ["OrphanReaper"]

GRACE = 1.0
"""Seconds that a dead child is left to whoever may be about to wait for it."""

_TURN = 0.005
"""Seconds for which a look may keep the event loop from other work."""
_PAUSE = 0.01


class _Dead(NamedTuple):
    pid: int
    started: int
    """Its start in clock ticks: by it and the pid, a process is told from a later one with the same pid."""


class OrphanReaper:
    """Reaps dead children that nobody owns.

    A child is owned if the pool says so (``is_owned``), or if this process holds a pidfd of it, as asyncio does
    for its subprocesses. Any other has the grace period to be waited for by whoever started it.
    """

    def __init__(self, is_owned: Callable[[int], bool]) -> None:
        self._is_owned = is_owned
        self._seen: set[_Dead] = set()
        """Dead ones that nobody owned at the last look."""
        self._found: set[_Dead] = set()
        """Those of this look, so far."""
        self._unlooked: list[int] = []
        self._looks_again = False
        """Whether a child may have died behind the back of this look, which took more than a turn."""
        self._looking: asyncio.TimerHandle | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the children of this process, on the running event loop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._look_later)
        self._look_later()  # at those that died before
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGCHLD)
            if self._looking is not None:
                self._looking.cancel()

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(GRACE, self._look)

    def _look(self) -> None:
        self._looking = None
        try:
            if not self._unlooked and _is_any_dead():
                self._unlooked = proc.children(os.getpid())
            self._look_at_some()
        except OSError:  # no fd to look with: in a while, perhaps
            self._unlooked = []
            self._look_later()
            return
        if self._unlooked:
            self._looks_again = True
            self._looking = asyncio.get_running_loop().call_later(_PAUSE, self._look)
            return
        self._seen, self._found = self._found, set()
        if self._seen or self._looks_again:
            self._looks_again = False
            self._look_later()

    def _look_at_some(self) -> None:
        """Look for a turn: a session may leave thousands, for the pool to reap."""
        until = time.monotonic() + _TURN
        held: set[int] | None = None
        while self._unlooked and time.monotonic() < until:
            dead = _as_dead(self._unlooked.pop())
            if dead is None or self._is_owned(dead.pid):
                continue
            held = set(_pids_held()) if held is None else held
            if dead in self._seen and dead.pid not in held:
                with suppress(ChildProcessError):  # waited for just now
                    os.waitpid(dead.pid, os.WNOHANG)
            elif dead.pid not in held:
                self._found.add(dead)


def _is_any_dead() -> bool:
    """Cheap, and true as well for those that are owned."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _as_dead(pid: int) -> _Dead | None:
    try:
        stat = proc.stat(pid)
    except OSError as error:
        if proc.is_out_of_fds(error):
            raise
        return None  # gone
    return _Dead(pid, stat.started) if stat.state == "Z" else None


def _pids_held() -> Iterator[int]:
    """The processes that this one holds a pidfd of."""
    for fd in os.listdir("/proc/self/fdinfo"):
        with suppress(FileNotFoundError):  # the listing's own
            for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
                if line.startswith("Pid:"):
                    yield int(line.split()[1])
