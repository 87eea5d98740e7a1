"""Deaths in the zygote: who died and how, and the end of what a child leaves behind.

The zygote is a subreaper, and so is each child for its own descendants: an orphan stays below the
child it came from, and comes to the zygote only when that child is dead. So whatever process the
zygote finds below it that it did not fork has outlived its session, and is killed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ..system import mark, proc

__all__ = [
    "PATIENCE",
    "TRACKER_PATIENCE",
    "Death",
    "Usage",
    "bury",
    "end_all_children",
    "kill_orphans",
    "next_death",
    "next_stop",
]

PATIENCE = 5.0
"""Seconds to wait for killed processes: one can stay for a while in an uninterruptible system call."""
TRACKER_PATIENCE = 2.0
"""Seconds that a resource tracker has to clean up after a session."""


class Death(NamedTuple):
    pid: int
    exit_code: int | None
    signal: int | None


class Usage(NamedTuple):
    cpu_seconds: float
    peak_memory_mb: float


def next_death() -> Death | None:
    """The next dead child, left as a zombie.

    It is not reaped yet (``WNOWAIT``): if the zygote is killed before it could pass the status on,
    the zombie goes to the supervisor with its status intact.
    """
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return Death(found.si_pid, found.si_status, None)
    return Death(found.si_pid, None, found.si_status)


def next_stop() -> tuple[int, int] | None:
    """The next child that was stopped by a signal, and the signal."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if found is None else (found.si_pid, found.si_status)


def bury(pid: int) -> Usage:
    """Reap a dead child."""
    _, _, usage = os.wait4(pid, 0)
    return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


class Orphans(NamedTuple):
    """Those that are not gone yet."""

    killed: set[int]
    spared: set[int]


def kill_orphans(known: set[int], *, spare_trackers: bool) -> Orphans:
    """Kill every process below the zygote that it did not fork, but for resource trackers where they are spared.

    Their deaths arrive as any child's does, and only then is it known what they leave behind in turn.
    """
    orphans = {pid for pid in proc.children(os.getpid()) if pid not in known}
    spared = {pid for pid in orphans if _is_tracker(pid)} if spare_trackers else set()
    for pid in orphans - spared:
        _kill(pid)
    return Orphans(orphans - spared, spared)


def _is_tracker(pid: int) -> bool:
    """Whether it is a resource tracker of ``multiprocessing``, which removes what a dead process has left, and ends."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as words:
            return b"multiprocessing.resource_tracker" in words.read(4096)
    except OSError:  # gone by now
        return False


def end_all_children() -> None:
    """Kill everything below this process."""
    _kill_until_none(lambda: proc.children(os.getpid()))


def end_strays(token: str) -> None:
    """Kill whatever carries the pool's mark, wherever it is: nobody is left to own it.

    These are what a child of an earlier zygote has left behind, after that zygote had been killed.
    """
    _kill_until_none(lambda: _strays(token))


def _kill_until_none(find: Callable[[], list[int]]) -> None:
    give_up = time.monotonic() + PATIENCE
    while (found := find()) and time.monotonic() < give_up:
        for pid in found:
            _kill(pid)
        with suppress(ChildProcessError):  # strays are not children of this process
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        # Nobody is told of the death of a process that is not its child, so look again.
        time.sleep(0.001)


def _strays(token: str) -> list[int]:
    found = []
    for pid in proc.pids():
        with suppress(OSError):  # gone by now, or not ours to read
            if pid != os.getpid() and mark.is_on(pid, token):
                found.append(pid)
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone by now; or a set-uid program, out of our power
        os.kill(pid, signal.SIGKILL)
