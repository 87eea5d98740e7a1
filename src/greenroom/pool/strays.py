"""What children left behind when no zygote was there to bury it.

Orphans below a lost zygote, or below a spawned process, come to this process, among the children
that it may have for reasons of its own. Ours carry the pool's mark (:mod:`greenroom.system.mark`), and
their owner's: those of a session that lives are left alone, and reaped when they die.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from ..system import mark, proc
from ..system.descent import may_belong

__all__ = ["StrayKiller"]

_PATIENCE = 5.0
_TRACKER_PATIENCE = 4.0  # seconds that a resource tracker has to clean up, and to end by itself
_INTERVAL = 0.005
_TURN = 0.005
"""Seconds for which strays may keep the event loop from other work: a session may leave thousands."""


@dataclass(slots=True)
class _Sweep:
    then: Callable[[int], None]
    until: float
    count: int = 0
    unlooked: list[int] = field(default_factory=list)
    """What this look has not come to."""
    has_found: bool = False
    """Whether this look has found any, or could not look."""


class StrayKiller:
    """Kills and reaps the strays of one pool.

    ``known`` gives the pids of its own direct children, until they are reaped; ``alive`` those of them that live.
    """

    def __init__(self, token: str, known: Callable[[], set[int]], alive: Callable[[], set[int]]) -> None:
        self._token = token
        self._known = known
        self._alive = alive
        self._killed: set[int] = set()
        self._unlooked: list[int] = []

    def sweep(self, then: Callable[[int], None]) -> None:
        """Kill what there is; when it is gone, call ``then`` with how many there were."""
        self._look(_Sweep(then, time.monotonic() + _PATIENCE))

    def _look(self, sweep: _Sweep) -> None:
        """Look for a turn. Dying strays pass on strays of their own, so look until a look finds none."""
        try:
            if not sweep.unlooked:
                sweep.unlooked, sweep.has_found = proc.children(os.getpid()), False
            found = self._find(sweep.unlooked)
        except OSError:  # no fd to look with: in a moment, perhaps
            found, sweep.has_found = [], True
        spared = self._trackers_of(found) if sweep.until - time.monotonic() > _PATIENCE - _TRACKER_PATIENCE else set()
        sweep.count += sum(1 for pid in set(found) - self._killed - spared if _is_living(pid))
        for pid in found:
            if pid not in spared:
                self._end(pid)
        sweep.has_found |= bool(found)
        if (sweep.has_found or sweep.unlooked) and time.monotonic() < sweep.until:
            asyncio.get_running_loop().call_later(_INTERVAL, self._look, sweep)
        else:
            sweep.then(sweep.count)

    async def end(self) -> None:
        """Sweep, and wait until nothing is left, or as long as that may take."""
        is_done = asyncio.get_running_loop().create_future()
        self.sweep(is_done.set_result)
        await is_done

    def _find(self, pids: list[int]) -> list[int]:
        """Take from these for a turn, and return the strays among what was taken."""
        known, alive, until = self._known(), self._alive(), time.monotonic() + _TURN
        found = []
        while pids and time.monotonic() < until:
            pid = pids.pop()
            if pid not in known and self._is_left(pid, alive):
                found.append(pid)
        return found

    def _is_left(self, pid: int, alive: set[int]) -> bool:
        return pid in self._killed or (self.may_own(pid) and not self._belongs_to(pid, alive))

    def _belongs_to(self, pid: int, alive: set[int]) -> bool:
        """Tell whether it is somebody's who lives. Sessions may go on to use the resource tracker of a lost zygote."""
        owner = self._owner_of(pid)
        if owner is None:  # a fork that has changed its limit, and has the environment of what it was forked from
            return may_belong(pid, alive)
        return owner in alive or (owner == mark.ZYGOTES and bool(alive) and proc.is_resource_tracker(pid))

    def _trackers_of(self, pids: list[int]) -> set[int]:
        return {pid for pid in pids if pid not in self._killed and proc.is_resource_tracker(pid)}

    def reap_dead(self) -> bool:
        """Reap those of sessions that live: nobody else will. Raises ``OSError`` when out of fds.

        A session may start thousands in a second, so this stops after a moment. Returns whether it has looked at all.
        """
        until = time.monotonic() + _TURN
        if not self._unlooked:
            self._unlooked = proc.children(os.getpid()) if _is_any_dead() else []
        known = self._known()
        while self._unlooked and time.monotonic() < until:
            pid = self._unlooked.pop()
            # Of an owner that is another process: a session's own death is read by its pidfd.
            if pid not in known and self._owner_of(pid) not in (None, pid):
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        return not self._unlooked

    def _owner_of(self, pid: int) -> int | None:
        try:
            return mark.owner_of(pid, self._token)
        except OSError as error:
            if proc.is_out_of_fds(error):
                raise
            return None  # gone by now

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


def _is_any_dead() -> bool:
    """Cheap, and true as well for the dead that are not ours."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _is_living(pid: int) -> bool:
    """Rather than a zombie, which is only to be reaped."""
    try:
        return proc.stat(pid).state != "Z"
    except OSError:
        return False
