"""Counts of the processes of each job, so that a fork storm ends only its own job.

A count must look at all processes of the machine, in a thread. So processes are counted only every few seconds, and
when the machine has noticeably more threads than before. The number of threads costs one read of ``/proc/loadavg``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

from ...log_fields import log_fields
from ...system import families, machine_limits, proc
from ..core import vocabulary as v
from .child_client import ChildClient
from .tools import Report, Tools

__all__ = ["ProcessCounter"]

_logger = logging.getLogger("greenroom")

_GLANCE = 0.1
"""Seconds between two reads of the number of threads on the machine."""
_LOOK = 5.0
"""Seconds between two looks while the number of threads does not grow."""
_LARGEST_SHARE = 0.05
"""Largest part of a CPU for looks. After an expensive look, the next one waits longer."""
_NOTICEABLE = 4
"""Divisor of ``process_limit``. A look is due when the machine has a fourth of that limit more threads than before."""

_FEW = 16
"""Most processes of a family that is never ended because a shared limit is scarce."""
_END_TIMEOUT = 3.0
"""Seconds for which a family is searched for and killed here. After that, the reapers end the rest."""

Result = TypeVar("Result")


class ProcessCounter:
    """Counter that reports a process of the pool if its family has more processes than ``process_limit``.

    A family is a process with all its descendants (:mod:`greenroom.system.families`). When a limit of the user or of a
    cgroup is nearly used up, no other process can fork. Then a family with more than half of that limit is reported,
    too.
    """

    def __init__(self, children: dict[str, ChildClient], token: str, tools: Tools, report: Report) -> None:
        self._children = children
        self._token = token
        self._tools = tools
        self._report = report
        self._is_looking = False
        self._threads = 0
        """Fewest threads on the machine since the last look."""
        self._growth = 0.0
        """Number of additional threads that makes a look due."""
        self._next_look = 0.0
        self._no_look_before = 0.0

    def start(self) -> None:
        """Begin to count, and go on until the clock stops."""
        self._glance()

    def _glance(self) -> None:
        self._tools.clock.call_later(_GLANCE, self._glance)
        if self._is_looking:
            return
        threads, now = self._threads, time.monotonic()
        with suppress(OSError):  # no fd is left for the read
            threads = proc.machine_threads()
        self._threads = min(threads, self._threads)
        is_due = now >= self._next_look or threads - self._threads >= self._growth
        if is_due and now >= self._no_look_before:
            self._threads, self._next_look = threads, now + _LOOK
            self._look()

    def _look(self) -> None:
        owners = {child.live_pid: child for child in self._children.values() if _is_limited(child)}
        if owners:
            self._growth = min(map(_limit, owners.values())) / _NOTICEABLE
            most = int(2 * min(map(_limit, owners.values())))
            looking = self._in_thread(_look_at, set(owners), self._token, most)
            looking.add_done_callback(partial(self._has_looked, owners))

    def _in_thread(self, fn: Callable[..., Result], *arguments: object) -> asyncio.Future[Result]:
        future = self._tools.walks.run(fn, *arguments)
        self._is_looking = True
        return future

    def _has_looked(self, owners: dict[int, ChildClient], looking: asyncio.Future[_Seen]) -> None:
        self._is_looking = False
        if looking.cancelled() or looking.exception() is not None:
            return
        seen = looking.result()
        self._no_look_before = time.monotonic() + seen.seconds / _LARGEST_SHARE
        for pid, child in owners.items():
            family = seen.families[pid]
            uses_up = seen.scarce is not None and len(family) > max(seen.scarce / 2, _FEW)
            if not child.is_dead and (uses_up or len(family) > _limit(child)):
                self._report(v.Overcrowded(child.id, len(family), seen.scarce if uses_up else None))
                self._end(pid, family, child)

    def _end(self, pid: int, family: list[families.Member], child: ChildClient) -> None:
        """Kill the family: some of its processes may have left its process group, which is being killed by now."""
        owner = next((member for member in family if member.pid == pid), None)
        if owner is not None:
            ending = self._in_thread(families.end, owner, family, self._token, _END_TIMEOUT)
            ending.add_done_callback(partial(self._has_ended, child.record.ids))

    def _has_ended(self, ids: dict[str, object], ending: asyncio.Future[int]) -> None:
        self._is_looking = False
        if not ending.cancelled() and ending.exception() is None:
            extra = log_fields("processes_killed", **ids, count=ending.result())
            _logger.info("%d processes of a job with too many processes were killed", ending.result(), extra=extra)


def _is_limited(child: ChildClient) -> bool:
    return child.pid is not None and not child.is_dead and child.record.options.process_limit is not None


def _limit(child: ChildClient) -> float:
    limit = child.record.options.process_limit
    return math.inf if limit is None else limit


class _Seen(NamedTuple):
    families: dict[int, list[families.Member]]
    scarce: int | None
    """Shared limit on processes and threads that is nearly used up."""
    seconds: float
    """CPU time of the look, in seconds."""


def _look_at(owners: Collection[int], token: str, most: int) -> _Seen:
    began = time.thread_time()  # CPU time: in a storm a look takes much longer, and this must not delay the next look
    found, room = families.of(owners, token), machine_limits.scarce_tasks(most)
    return _Seen(found, None if room is None else room.limit, time.thread_time() - began)
