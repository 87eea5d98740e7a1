"""Deaths in the zygote: who died and how, and the end of everything at its own end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from ..system import mark, proc

__all__ = [
    "PATIENCE",
    "Death",
    "Usage",
    "bury",
    "end_all_children",
    "end_strays",
    "kill",
    "let_trackers_end",
    "next_death",
    "next_stop",
    "trackers",
]

PATIENCE = 5.0
"""Seconds to wait for killed processes: one can stay for a while in an uninterruptible system call."""
LAST_PATIENCE = 0.5
"""Seconds that the zygote's own resource tracker has at the zygote's end."""


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


def end_all_children(spare: Collection[int] = ()) -> None:
    """Kill everything below this process, but for some of its children."""
    _kill_until_none(lambda: [pid for pid in proc.children(os.getpid()) if pid not in spare])


def end_strays(token: str, spare: Collection[int] = ()) -> None:
    """Kill whatever carries the pool's mark, wherever it is: nobody is left to own it.

    These are what a child of an earlier zygote has left behind, after that zygote had been killed.
    """
    _kill_until_none(lambda: [pid for pid in _strays(token) if pid not in spare])


def trackers() -> set[int]:
    """The resource trackers among the children of this process."""
    return {pid for pid in proc.children(os.getpid()) if proc.is_resource_tracker(pid)}


def let_trackers_end() -> None:
    """Give those whose work is done the time to end by themselves."""
    give_up = time.monotonic() + LAST_PATIENCE
    while trackers() and time.monotonic() < give_up:
        time.sleep(0.001)


def _kill_until_none(find: Callable[[], list[int]]) -> None:
    give_up = time.monotonic() + PATIENCE
    while (found := find()) and time.monotonic() < give_up:
        for pid in found:
            kill(pid)
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


def kill(pid: int) -> None:
    """Kill a process, if it is still there and may be killed."""
    with suppress(ProcessLookupError, PermissionError):  # gone by now; or a set-uid program, out of our power
        os.kill(pid, signal.SIGKILL)
