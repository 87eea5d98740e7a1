"""Deaths in the zygote: finds and reaps dead children, and ends all processes at the zygote's own end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from ..system import mark, proc, trackers

__all__ = [
    "PATIENCE",
    "TRACKER_PATIENCE",
    "Death",
    "Usage",
    "death_of",
    "end_all_children",
    "end_orphans",
    "kill",
    "let_trackers_end",
    "next_death",
    "next_stop",
    "reap",
]

PATIENCE = 7.0
"""Seconds to wait for killed processes. A process can stay in an uninterruptible system call for a while."""
TRACKER_PATIENCE = 6.5
"""Seconds that a resource tracker has to clean up after a job. On a busy machine, a tracker may get little CPU."""
LAST_PATIENCE = 1.5
"""Seconds that resource trackers, of the zygote itself and of its last jobs, have when the zygote ends in order."""


class Death(NamedTuple):
    pid: int
    exit_code: int | None
    signal: int | None


class Usage(NamedTuple):
    cpu_seconds: float
    peak_memory_mb: float


def next_death() -> Death | None:
    """Return the next dead child, and leave it as a zombie; ``None`` if there is none.

    The child is not reaped yet (``WNOWAIT``). If the zygote is killed before it can report the status, the supervisor
    gets the zombie with its status intact.
    """
    return _death(os.P_ALL, 0)


def death_of(pid: int) -> Death | None:
    """Return the death of this child, and leave it as a zombie; ``None`` if it is alive."""
    return _death(os.P_PID, pid)


def _death(kind: int, pid: int) -> Death | None:
    try:
        found = os.waitid(kind, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return Death(found.si_pid, found.si_status, None)
    return Death(found.si_pid, None, found.si_status)


def next_stop() -> tuple[int, int] | None:
    """Return the next child that was stopped by a signal, and the signal; ``None`` if there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if found is None else (found.si_pid, found.si_status)


def reap(pid: int) -> Usage:
    """Reap a dead child, and return its use of resources."""
    _, _, usage = os.wait4(pid, 0)
    return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def end_all_children(spare: Collection[int] = (), *, spare_trackers: bool = False) -> None:
    """Kill all processes below this one, except its children in ``spare``.

    ``spare_trackers``: spare resource trackers as well. When a job is dead, its tracker comes to this process, and
    removes the resources that the job has left.
    """
    _kill_until_none(
        lambda: [
            pid
            for pid in proc.children(os.getpid())
            if pid not in spare and not (spare_trackers and trackers.is_resource_tracker(pid))
        ]
    )


def end_orphans(token: str, *, spare_trackers: bool = False) -> None:
    """Kill all processes with the pool's mark, wherever they are, since none of their owners is left.

    A child of an earlier zygote may have left such a process, after that zygote had been killed.
    """
    _kill_until_none(
        lambda: [one for one in mark.living(token) if not (spare_trackers and trackers.is_resource_tracker(one))]
    )


def let_trackers_end(token: str | None = None) -> None:
    """Give resource trackers among the children of this process the time to end by themselves.

    With a ``token``, wait also for those with the pool's mark, wherever they are, and for longer: the supervisor is
    gone, so many jobs have ended at once, and nobody waits for the zygote.
    """
    give_up = time.monotonic() + (LAST_PATIENCE if token is None else TRACKER_PATIENCE)
    while time.monotonic() < give_up:
        there = proc.children(os.getpid()) + ([] if token is None else mark.living(token))
        if not any(map(trackers.is_resource_tracker, there)):
            return
        time.sleep(0.001 if token is None else 0.01)


def _kill_until_none(find: Callable[[], list[int]]) -> None:
    give_up = time.monotonic() + PATIENCE
    while (found := find()) and time.monotonic() < give_up:
        for pid in found:
            kill(pid)
        _reap_dead()
        # No event reports the death of a process that is not a child, so look again.
        time.sleep(0.001)
    _reap_dead()


def _reap_dead() -> None:
    with suppress(ChildProcessError):  # there is no child: an orphan may be the child of another process
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def kill(pid: int) -> None:
    """Kill a process, if it still exists and may be killed."""
    with suppress(ProcessLookupError, PermissionError):  # gone by now; or a set-uid program: not permitted
        os.kill(pid, signal.SIGKILL)
