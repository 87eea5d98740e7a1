"""Reaping what nobody else will: orphans that come to the worker as PID 1, or as a subreaper.

In a container without an init the worker is PID 1, and every orphan becomes its child. So do the processes
that a shell script has started before it gave way to the worker by ``exec``. Dead, they would stay zombies.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..system import proc

__all__ = ["OrphanReaper"]

GRACE = 1.0
"""Seconds that a dead child is left to whoever may be about to wait for it."""


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
            found = self._unowned() if _is_any_dead() else set()
        except OSError:  # no fd to look with: in a while, perhaps
            found = self._seen
        else:
            for dead in found & self._seen:
                with suppress(ChildProcessError):  # waited for just now
                    os.waitpid(dead.pid, os.WNOHANG)
            found = found - self._seen
        self._seen = found
        if found:
            self._look_later()

    def _unowned(self) -> set[_Dead]:
        dead = set(_dead_children())
        if not dead:
            return dead
        held = set(_pids_held())
        return {each for each in dead if each.pid not in held and not self._is_owned(each.pid)}


def _is_any_dead() -> bool:
    """Cheap, and true as well for those that are owned."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _dead_children() -> Iterator[_Dead]:
    for pid in proc.children(os.getpid()):
        try:
            stat = proc.stat(pid)
        except OSError as error:
            if proc.is_out_of_fds(error):
                raise
            continue  # gone
        if stat.state == "Z":
            yield _Dead(pid, stat.started)


def _pids_held() -> Iterator[int]:
    """The processes that this one holds a pidfd of."""
    for fd in os.listdir("/proc/self/fdinfo"):
        with suppress(FileNotFoundError):  # the listing's own
            for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
                if line.startswith("Pid:"):
                    yield int(line.split()[1])
