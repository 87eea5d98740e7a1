"""Orphans: what lives below the zygote that it did not fork, whose it is, and its end with its owner's.

The zygote is the subreaper of all its sessions. What has lost its parent comes to it at once, and is reaped when it
dies. Of those that live, the mark tells the owner (:mod:`greenroom.system.mark`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from ..system import mark, proc
from ..system.descent import group_of, may_belong
from . import undertaker

__all__ = ["TRACKER_PATIENCE", "Orphans"]

TRACKER_PATIENCE = 4.0
"""Seconds that a resource tracker has to clean up after a session."""


class Left(NamedTuple):
    """Orphans that are not gone yet."""

    killed: set[int]
    spared: set[int]


class Orphans:
    """The orphans below this process. ``marks_hold``: a session's mark stays on whatever it starts."""

    def __init__(self, token: str, *, marks_hold: bool) -> None:
        self._token = token
        self._marks_hold = marks_hold
        self.of_preload = frozenset(proc.children(os.getpid()))
        """Processes that preload has started: they belong to all sessions."""
        self._spared = set(self.of_preload)
        self._owners: dict[int, int | None] = {}  # a pid is the same process's until it is reaped here
        self._counted: dict[int, int | None] = {}  # of those that were killed: the owner
        self._killed: Counter[int | None] = Counter()

    def end_of(self, dead: Collection[int], alive: Collection[int], *, spare_trackers: bool) -> Left:
        """Kill each orphan whose owner is not alive, but for resource trackers where they are spared.

        ``dead`` are owners that have died lately.

        Their deaths arrive as any child's does, and only then is it known what they leave behind in turn.
        Raises ``OSError`` when there is no fd to look with.
        """
        found = set(proc.children(os.getpid())).difference(self._spared, alive)
        left = {pid for pid in found if not self._belongs_to(pid, dead, alive)}
        trackers = {pid for pid in left if proc.is_resource_tracker(pid)} if spare_trackers else set[int]()
        for pid in left - trackers:
            undertaker.kill(pid)
            if pid not in self._counted:
                owner = self._counted[pid] = self._owners.get(pid)
                self._killed[owner] += 1
        return Left(left - trackers, trackers)

    def take_counts(self) -> Counter[int | None]:
        """Return how many of each owner were killed since the last call; of ``None``: whose was not to be told."""
        counts, self._killed = self._killed, Counter()
        return counts

    def give_up(self, pids: set[int]) -> None:
        """Leave alone what does not die, or may not be killed."""
        self._spared |= pids

    def buried(self, pid: int) -> None:
        """Forget one that was reaped: its pid may be another's now."""
        self._owners.pop(pid, None)
        self._counted.pop(pid, None)
        self._spared.discard(pid)
        self.of_preload -= {pid}

    def _belongs_to(self, pid: int, dead: Collection[int], alive: Collection[int]) -> bool:
        """Tell whether it is somebody's who lives: the zygote's, a session's, or a service's."""
        if not self._marks_hold:
            # Sessions are subreapers themselves: what is here has outlived its own, or is a helper's of preload.
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
                return None  # gone
        return self._owners[pid]
