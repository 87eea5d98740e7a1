"""Orphans that no zygote reaps.

An orphan below a lost zygote, or below a spawned process, becomes a child of this process. This process may have other
children, which are not the pool's. Orphans of the pool carry the mark of the pool and of their owner
(:mod:`greenroom.system.mark`). An orphan whose owner lives is left alone, and reaped when it dies.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from ...system import mark, proc, trackers
from ...system.mark import may_belong

__all__ = ["OrphanKiller"]

_PATIENCE = 7.0
_TRACKER_PATIENCE = 6.5  # seconds for a resource tracker to clean up and to end by itself
_INTERVAL = 0.005
_TURN = 0.005
"""Seconds of one turn. The event loop does other work between turns, because a job may leave thousands of orphans."""


@dataclass(slots=True)
class _Sweep:
    then: Callable[[int], None]
    until: float
    count: int = 0
    unlooked: list[int] = field(default_factory=list)
    """Pids of children that are still to be looked at in this look."""
    has_found: bool = False
    """True if this look has found an orphan, or could not look."""


class OrphanKiller:
    """Killer and reaper of the orphans of one pool.

    ``known`` returns the pids of the pool's own processes, until they are reaped. ``alive`` returns the pids of those
    that live.
    """

    def __init__(self, token: str, known: Callable[[], set[int]], alive: Callable[[], set[int]]) -> None:
        self._token = token
        self._known = known
        self._alive = alive
        self._killed: set[int] = set()
        self._unlooked: list[int] = []
        self._seen: dict[int, tuple[int, bool]] = {}
        """Start of each child in clock ticks, and whether to reap it. If the pid is used again, the start differs."""

    def sweep(self, then: Callable[[int], None]) -> None:
        """Kill the orphans that have no living owner.

        ``then`` gets the number of these orphans when all are gone, or after ``_PATIENCE`` seconds.
        """
        self._look(_Sweep(then, time.monotonic() + _PATIENCE))

    def _look(self, sweep: _Sweep) -> None:
        """Look for one turn. Dying orphans leave orphans of their own, so search until one search finds no orphan."""
        try:
            if not sweep.unlooked:
                sweep.unlooked, sweep.has_found = proc.children(os.getpid()), False
            found = self._find(sweep.unlooked)
        except OSError:  # no fd is left for the look: try again in a moment
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
        """Sweep, and wait for the end of the sweep."""
        is_done = asyncio.get_running_loop().create_future()
        self.sweep(is_done.set_result)
        await is_done

    def _find(self, pids: list[int]) -> list[int]:
        """Remove pids from the list for one turn. Return the pids of orphans that have no living owner."""
        known, alive, until = self._known(), self._alive(), time.monotonic() + _TURN
        found = []
        while pids:  # look at one pid at least, even if this process gets no CPU for the whole turn
            pid = pids.pop()
            if pid not in known and self._is_left(pid, alive):
                found.append(pid)
            if time.monotonic() > until:
                break
        return found

    def _is_left(self, pid: int, alive: set[int]) -> bool:
        return pid in self._killed or (self.may_own(pid) and not self._belongs_to(pid, alive))

    def _belongs_to(self, pid: int, alive: set[int]) -> bool:
        """Return true if the owner of an orphan lives. Jobs may still use the resource tracker of a lost zygote."""
        owner = self._owner_of(pid)
        if owner is None:  # a fork that has changed its limit, and has the environment of its parent
            return may_belong(pid, alive)
        return owner in alive or (owner == mark.ZYGOTES and bool(alive) and trackers.is_resource_tracker(pid))

    def _trackers_of(self, pids: list[int]) -> set[int]:
        return {pid for pid in pids if pid not in self._killed and trackers.is_resource_tracker(pid)}

    def reap_dead(self) -> bool:
        """Reap dead orphans whose owner lives, and killed orphans that died late: no other code reaps them.

        A job may start thousands of processes in a second, so a call stops after one turn. Return true if all children
        were looked at. Raises ``OSError`` if no fds are left.
        """
        until = time.monotonic() + _TURN
        if not self._unlooked:
            children = proc.children(os.getpid())
            for gone in self._seen.keys() - children:
                del self._seen[gone]
            # If a child is dead, look at all: the kernel does not list the dead ones. Otherwise look at new ones only.
            self._unlooked = children if _is_any_dead() else [pid for pid in children if pid not in self._seen]
        known = self._known()
        while self._unlooked:  # look at one pid at least, even if this process gets no CPU for the whole turn
            pid = self._unlooked.pop()
            if pid not in known and self._is_to_be_reaped(pid):
                self._reap(pid)
            if time.monotonic() > until:
                break
        return not self._unlooked

    def _reap(self, pid: int) -> None:
        with suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                self._killed.discard(pid)
                self._seen.pop(pid, None)

    def _is_to_be_reaped(self, pid: int) -> bool:
        """Return true for an orphan of the pool, but not for a process of the pool, which its pidfd reports.

        A zombie has no environment, which may hold the mark. So the answer is kept while the child still lives.
        """
        if pid in self._killed:
            return True
        started = self._started_at(pid)
        seen = self._seen.get(pid)
        if seen is None or seen[0] != started:
            seen = self._seen[pid] = (started, self._owner_of(pid) not in (None, pid))
        return seen[1]

    def _started_at(self, pid: int) -> int:
        try:
            return proc.stat(pid).started
        except OSError as error:
            if proc.is_out_of_fds(error):
                raise
            return -1  # gone by now

    def _owner_of(self, pid: int) -> int | None:
        try:
            return mark.owner_of(pid, self._token)
        except OSError as error:
            if proc.is_out_of_fds(error):
                raise
            return None  # gone by now

    def may_own(self, pid: int) -> bool:
        """Return true if the pool has started this child. Raises ``OSError`` if no fds are left."""
        if pid in self._killed:
            return True
        try:
            return mark.is_on(pid, self._token)
        except OSError as error:
            if proc.is_out_of_fds(error):
                raise
            return False  # gone by now

    def _end(self, pid: int) -> None:
        """Kill an orphan, or reap it if it is dead. A child of this process keeps its pid until it is reaped."""
        self._killed.add(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                self._killed.discard(pid)
        except (ChildProcessError, ProcessLookupError):
            self._killed.discard(pid)


def _is_any_dead() -> bool:
    """Return true if any child of this process is dead, also a child that is not the pool's. Costs one system call."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _is_living(pid: int) -> bool:
    """Return true if a process is there and is no zombie. A zombie needs only to be reaped."""
    try:
        return proc.stat(pid).state != "Z"
    except OSError:
        return False
