"""Child reaper, in the zygote: reaps each dead process below the zygote, and reports the ends of children.

The end of a child is reported twice. ``Exited`` has the exit status, and is sent at once. ``Reaped`` is sent when no
process that the child started is left. So the pool acts on a death without delay, and the exit report can still count
the killed processes that the child left behind.

Several kinds of processes are below the zygote:

- A child is a fork of the zygote that becomes warm and runs one job.
- A service is a fork of the zygote that answers calls of all children (:mod:`.services`).
- An orphan is a process whose parent has died, so that the kernel made the zygote its parent (:mod:`.orphans`). The
  owner of an orphan is the child or service that started it. If the owner is dead, the orphan is killed.
- A tracker is a resource tracker of ``multiprocessing``. It removes the shared memory of a dead process and then exits.
  So a tracker is spared at first, and is killed only after ``TRACKER_PATIENCE``.

A job may leave thousands of processes, dead or alive. So each turn of this work takes a few milliseconds. Between two
turns, the zygote forks.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ..wire import messages as m
from . import deaths, exit_hooks
from .orphans import Look, Orphans
from .services import COULD_NOT_LOAD, Services

__all__ = ["ChildReaper"]

_TURN = 0.005
"""Seconds that one turn may keep the zygote from forking. With unread deaths, a search may add as many seconds."""
_LOOK_AGAIN = 0.1
"""Seconds between two searches for orphans. No signal reports that the patience with spared trackers is over."""
_REMEMBERED = 4096
"""Number of dead children whose ids are remembered, so that a repeated fork request does not fork again."""


class _Pending(NamedTuple):
    pid: int
    reaped: m.Reaped
    """Message to send when no process that the child started is left."""


class ChildReaper:
    """Register of the zygote's children, from their forks on. ``send`` sends a report to the supervisor.

    The zygote calls :meth:`note_fork` after each fork of a child, and :meth:`turn` in each turn of its loop.
    """

    def __init__(self, orphans: Orphans, services: Services, send: Callable[[m.Message], object]) -> None:
        self.live: dict[int, str] = {}
        """Id in the pool (``process_id``) of each child that is not reaped, by pid."""
        self.forked: dict[str, int] = {}
        """Pid of each ``process_id``, also of the last 4096 children that died."""
        self._orphans = orphans
        self._services = services
        self._send = send
        self._forgettable: deque[str] = deque()
        self._pending: dict[str, _Pending] = {}  # by process_id: another process may have the pid by now
        self._is_cleaning_up = False
        self._cleaning_since = 0.0
        self._is_behind = False
        self._deaths = 0  # so far
        self._deaths_at_look = 0
        self._looked_for: list[str] = []
        self._look: Look | None = None
        self._next_look = 0.0

    def note_fork(self, process_id: str, pid: int) -> None:
        """Note a new child. Forget the oldest dead children, if more than 4096 dead ones are known."""
        self.live[pid] = process_id
        self.forked[process_id] = pid
        while len(self._forgettable) > _REMEMBERED:
            del self.forked[self._forgettable.popleft()]

    def disown(self, pid: int) -> None:
        """Report no end of a child, because its fork was reported as failed. Another request does not fork it again."""
        self._forgettable.append(self.live.pop(pid))

    def seconds_to_next(self, now: float) -> float | None:
        """Return the seconds until the next turn; ``None`` to wait until a child dies or stops."""
        if self._is_behind or self._look is not None:
            return 0.0
        return max(0.0, self._next_look - now) if self._is_cleaning_up else None

    def turn(self, *, has_news: bool) -> None:
        """Reap dead processes, and search for orphans, for the time of one turn.

        ``has_news``: SIGCHLD has come, so a process below the zygote has died or stopped.
        """
        until = time.monotonic() + _TURN
        if has_news or self._is_behind:
            self._is_behind = not (self._see_stops(until) and self._reap_until(until))
            if self._is_behind:
                self._reap_own()
        if self._is_cleaning_up and (has_news or self._look is not None or time.monotonic() >= self._next_look):
            self._look_at_orphans(until + _TURN if self._is_behind else until)

    # --- deaths ----------------------------------------------------------------------------------

    def _see_stops(self, until: float) -> bool:
        """Report stopped children. Return whether all were reported."""
        while (stop := deaths.next_stop()) is not None:
            if stop[0] in self.live:
                self._send(m.Stopped(self.live[stop[0]], stop[1]))
            elif stop[0] in self._services.pids:
                os.kill(stop[0], signal.SIGKILL)  # a stopped service answers no call; the zygote starts another one
            if time.monotonic() > until:
                return False
        return True

    def _reap_until(self, until: float) -> bool:
        while (death := deaths.next_death()) is not None:
            self._reap(death)
            if time.monotonic() > until:
                return False
        return True

    def _reap_own(self) -> None:
        """Reap children and services first. They must not wait behind thousands of orphans."""
        for pid in [*self.live, *self._services.pids]:
            death = deaths.death_of(pid)
            if death is not None:
                self._reap(death)

    def _reap(self, death: deaths.Death) -> None:
        process_id = self.live.pop(death.pid, None)
        if process_id is not None:
            self._send(m.Exited(process_id, death.exit_code, death.signal))
        usage = deaths.reap(death.pid)
        self._orphans.reaped(death.pid)
        if process_id is not None:
            self._forgettable.append(process_id)
            self._clean_up()
            reaped = m.Reaped(process_id, usage.cpu_seconds, usage.peak_memory_mb, 0)
            self._pending[process_id] = _Pending(death.pid, reaped)
            return
        exit_hooks.note_death(death.pid, -(death.signal or 0) if death.exit_code is None else death.exit_code)
        has_paused = death.exit_code == COULD_NOT_LOAD
        service = self._services.died(death.pid, time.monotonic(), has_paused=has_paused)
        if service is not None:
            self._clean_up()
        if service is not None and not has_paused:  # otherwise the service itself has logged the cause
            how = f"signal {death.signal}" if death.exit_code is None else f"exit code {death.exit_code}"
            print(f"greenroom: the service {service} died ({how}); it is started again", file=sys.stderr)

    # --- orphans ---------------------------------------------------------------------------------

    def _clean_up(self) -> None:
        if not self._is_cleaning_up:  # otherwise the clean-up after an earlier death goes on
            self._is_cleaning_up = True
            self._cleaning_since = time.monotonic()
        self._deaths += 1
        self._next_look = 0.0

    def _look_at_orphans(self, until: float) -> None:
        """Search for orphans, for the time of one turn.

        When one full search finds no orphan, or ``PATIENCE`` is over, report the children that died before this search
        began.
        """
        alive = self.live.keys() | self._services.pids
        dead = {each.pid for each in self._pending.values()}
        since = time.monotonic() - self._cleaning_since
        try:
            if self._look is None:
                has_patience = since < deaths.TRACKER_PATIENCE
                self._deaths_at_look, self._looked_for = self._deaths, list(self._pending)
                self._look = self._orphans.begin(alive, spare_trackers=has_patience)
            if not self._orphans.go_on(self._look, dead, alive, until):
                return
        except OSError:  # no fd is free for the search: try again later
            if since < deaths.PATIENCE:
                self._look, self._next_look = None, time.monotonic() + _LOOK_AGAIN
                return
        look, self._look = self._look, None
        self._next_look = time.monotonic() + _LOOK_AGAIN
        if look is None:  # in all this time, no fd became free
            self._report()
        elif not look.has_found or since >= deaths.PATIENCE:
            self._give_up(look.killed)
            self._report()

    def _give_up(self, killed: set[int]) -> None:
        if killed:
            # Log these processes once, and ignore them from now on. Otherwise they would delay the report of each later
            # child.
            print(f"greenroom: processes {sorted(killed)} of an ended job do not die", file=sys.stderr)
            self._orphans.give_up(killed)

    def _report(self) -> None:
        dead = [self._pending.pop(process_id) for process_id in self._looked_for]
        counts = self._orphans.take_counts([pid for pid, _ in dead])
        for pid, reaped in dead:
            # Orphans whose owner is unknown are counted for the first child, so that each orphan is counted once.
            reaped.descendants_killed = counts[pid] + counts.pop(None, 0)
            self._send(reaped)
        self._is_cleaning_up = self._deaths != self._deaths_at_look  # has a child or service died during this search?
        if not self._is_cleaning_up:
            self._orphans.forget_counts()
        self._cleaning_since = time.monotonic()
        self._next_look = 0.0
