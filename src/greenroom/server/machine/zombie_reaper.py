"""Reaper of dead children of the worker for which no other code waits.

In a container without an init, the worker is PID 1, and each orphan becomes its child. A worker that is a subreaper
adopts the orphans among its descendants. A shell script that runs the worker by ``exec`` leaves its own children to the
worker. A dead child stays a zombie until its parent waits for it.
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

from ...system import proc

__all__ = ["OrphanReaper"]

GRACE = 1.0
"""Seconds that a dead child is left to other code, which may be about to wait for it."""

_TURN = 0.005
"""Seconds for which one look may block the event loop."""
_PAUSE = 0.01


class _Dead(NamedTuple):
    pid: int
    started: int
    """Start time in clock ticks. A later process with the same pid has another start time."""


class OrphanReaper:
    """Reaper of dead children without an owner.

    A child has an owner if ``is_owned`` says so: the pool waits for it. A child also has an owner if this process holds
    a pidfd of it, as asyncio does for its subprocesses. Any other dead child is reaped after :data:`GRACE`. Until then,
    the code that started it can wait for it.
    """

    def __init__(self, is_owned: Callable[[int], bool]) -> None:
        self._is_owned = is_owned
        self._seen: set[_Dead] = set()
        """Dead children that had no owner at the last look."""
        self._found: set[_Dead] = set()
        """Dead children without an owner that this look has found so far."""
        self._unlooked: list[int] = []
        self._looks_again = False
        """True if this look took more than one turn of the event loop. A child may have died unnoticed meanwhile."""
        self._looking: asyncio.TimerHandle | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the children of this process, on the running event loop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._look_later)
        self._look_later()  # for children that died before
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
        except OSError:  # no free fd: look again later
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
        """Look at children for at most :data:`_TURN` seconds.

        A job may leave thousands of children for the pool to reap.
        """
        until = time.monotonic() + _TURN
        held: set[int] | None = None
        while self._unlooked and time.monotonic() < until:
            dead = _as_dead(self._unlooked.pop())
            if dead is None or self._is_owned(dead.pid):
                continue
            held = set(_pids_held()) if held is None else held
            if dead in self._seen and dead.pid not in held:
                with suppress(ChildProcessError):  # other code has just reaped it
                    os.waitpid(dead.pid, os.WNOHANG)
            elif dead.pid not in held:
                self._found.add(dead)


def _is_any_dead() -> bool:
    """Return true if any child is dead, also one with an owner. The check is cheap."""
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
        return None  # the process is gone
    return _Dead(pid, stat.started) if stat.state == "Z" else None


def _pids_held() -> Iterator[int]:
    """Yield the pids of the processes that this process holds a pidfd of."""
    for fd in os.listdir("/proc/self/fdinfo"):
        with suppress(FileNotFoundError):  # the fd of the listing itself, which is closed by now
            for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
                if line.startswith("Pid:"):
                    yield int(line.split()[1])
