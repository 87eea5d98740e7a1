"""Orphans: descendants of the zygote that it did not fork. An orphan is killed when its owner is dead.

The zygote is the subreaper of all its children. A process that loses its parent becomes a child of the zygote at once,
and is reaped when it dies. The mark of a living orphan names its owner (:mod:`greenroom.system.mark`).
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress

from ..system import mark, proc, trackers
from ..system.mark import group_of, may_belong
from . import deaths

__all__ = ["Look", "Orphans"]


_MANY = 200
"""Largest number of orphans that one look kills one by one. A job that leaves more of them may fork without end. Then
the process group is killed, since no process in a group escapes that."""


class Look:
    """Look of the zygote at all orphans, which may take many turns."""

    def __init__(self, unlooked: set[int], *, spare_trackers: bool) -> None:
        self.unlooked = unlooked
        self.spare_trackers = spare_trackers
        self.has_found = False
        """True once an orphan was found. Processes below an orphan become orphans only after its death."""
        self.killed = set[int]()
        """Pids of orphans that were killed, and are not reaped yet."""
        self.ended_groups = set[int]()


class Orphans:
    """Orphans below this process. ``marks_hold``: all processes that a child starts keep the child's mark."""

    def __init__(self, token: str, *, marks_hold: bool) -> None:
        self._token = token
        self._marks_hold = marks_hold
        self.of_preload = frozenset(proc.children(os.getpid()))
        """Processes that preload has started, and that belong to all children."""
        self._spared = set(self.of_preload)
        self._owners: dict[int, int | None] = {}  # by pid, which stays valid until the process is reaped here
        self._counted: dict[int, int | None] = {}  # owners of killed orphans, by pid
        self._killed: Counter[int | None] = Counter()
        self._look: Look | None = None

    def begin(self, alive: Collection[int], *, spare_trackers: bool) -> Look:
        """Begin to look for orphans whose owner is not alive. Raises ``OSError`` when no fd is free for the look."""
        found = set(proc.children(os.getpid())).difference(self._spared, alive)
        self._look = Look(found, spare_trackers=spare_trackers)
        return self._look

    def go_on(self, look: Look, dead: Collection[int], alive: Collection[int], until: float) -> bool:
        """Kill each orphan whose owner is not alive. Resource trackers stay if the look spares them.

        Return whether the look is over. The work stops at ``until``, on the monotonic clock. ``dead`` are owners that
        have died lately. Raises ``OSError`` when no fd is free for the look.
        """
        while look.unlooked:
            pid = look.unlooked.pop()
            if pid not in alive and not self._belongs_to(pid, dead, alive):
                self._end(look, pid, alive)
            if time.monotonic() > until:
                break
        return not look.unlooked

    def _end(self, look: Look, pid: int, alive: Collection[int]) -> None:
        look.has_found = True
        if look.spare_trackers and trackers.is_resource_tracker(pid):
            return
        deaths.kill(pid)
        look.killed.add(pid)
        if pid not in self._counted:
            owner = self._counted[pid] = self._owners.get(pid)
            self._killed[owner] += 1
        if len(look.killed) > _MANY:
            self._end_group(look, pid, alive)

    def _end_group(self, look: Look, pid: int, alive: Collection[int]) -> None:
        """Kill the process group of an orphan. Only this process reaps the orphan, so the group still belongs to it."""
        group = group_of(pid)
        if group in look.ended_groups or group in (None, os.getpgrp()) or group in alive:
            return
        look.ended_groups.add(group or 0)
        with suppress(ProcessLookupError, PermissionError):  # all are dead by now; or the user may kill none of them
            os.killpg(group or 0, signal.SIGKILL)

    def take_counts(self, owners: Collection[int]) -> Counter[int | None]:
        """Return how many orphans of each owner were killed, and reset these counts. ``None`` counts unknown owners."""
        return Counter({owner: self._killed.pop(owner, 0) for owner in (*owners, None)})

    def forget_counts(self) -> None:
        """Reset all counts, because no dead child is left to be reported."""
        self._killed.clear()

    def give_up(self, pids: set[int]) -> None:
        """Spare these processes from now on: they do not die, or may not be killed."""
        self._spared |= pids

    def reaped(self, pid: int) -> None:
        """Forget a process that was reaped, since another process may get its pid."""
        self._owners.pop(pid, None)
        self._counted.pop(pid, None)
        self._spared.discard(pid)
        if self._look is not None:
            self._look.unlooked.discard(pid)
            self._look.killed.discard(pid)
        self.of_preload -= {pid}

    def _belongs_to(self, pid: int, dead: Collection[int], alive: Collection[int]) -> bool:
        """Return whether the owner of a process is alive: the zygote, a child or a service."""
        if not self._marks_hold:
            # Children are subreapers themselves. So an orphan here has outlived its child, or comes from a helper of
            # preload.
            return group_of(pid) == os.getpgrp()
        owner = self._owner_of(pid)
        if owner is not None:
            return owner == mark.ZYGOTES or owner in alive
        return may_belong(pid, alive, dead)

    def _owner_of(self, pid: int) -> int | None:
        if pid not in self._owners:
            try:
                self._owners[pid] = mark.owner_of(pid, self._token)
            except OSError as error:
                if proc.is_out_of_fds(error):
                    raise
                return None  # the process is gone
        return self._owners[pid]
