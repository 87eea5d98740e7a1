"""Reaper: a process that waits for the supervisor's death, and then ends all processes with the pool's mark.

When the supervisor is gone, a zygote ends all processes below it. The reaper covers the other cases: both were killed,
or there is no zygote (``spawn``). The supervisor starts one reaper for the pool. The reaper imports a few modules, and
neither the app nor ``greenroom/__init__.py``, so that it takes only 5 MiB.

The reaper does not carry the mark, so no zygote kills it as an orphan.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress

from ..system import lifeline, mark, trackers
from . import deaths

__all__ = ["NAME", "main"]

NAME = "gr:reaper"

ZYGOTE_NAME = "gr:zygote"
"""Name of the main thread of a zygote that has loaded the app."""

_ZYGOTE_PATIENCE = 20.0
"""Seconds for a zygote to end all processes below it, and to run the exit hooks of preload."""
_QUIET_LOOKS = 3
"""Number of looks in a row that must find no process. One look alone can miss a process that forks."""
_PAUSE = 0.02
_SHORTEST_PAUSE = 0.001
_LONGEST_PAUSE = 1.0
_MANY = 200
"""Largest number of processes that are killed one by one. More may be a fork storm. Then whole process groups are
killed, with all processes that they fork meanwhile."""


class _Left:
    """Processes of the pool that are not dead."""

    def __init__(self, token: str) -> None:
        self.zygotes: list[int] = []
        self.trackers: list[int] = []
        self.others: list[int] = []
        for pid in mark.living(token):
            with suppress(OSError):  # gone by now
                self._sort(pid, token)

    def _sort(self, pid: int, token: str) -> None:
        if _is_zygote(pid, token):
            self.zygotes.append(pid)
        elif trackers.is_resource_tracker(pid):
            self.trackers.append(pid)
        else:
            self.others.append(pid)


def main() -> None:
    """Wait for the hang-up of the fd in ``sys.argv[1]``, then end the pool. Return after that."""
    token, fd = os.environ[mark.REAPED_VARIABLE], int(sys.argv[1])
    # A signal to the whole service, or from a terminal, concerns the supervisor. The reaper executes no program that
    # would inherit SIG_IGN.
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir("/")  # lets every file system be unmounted
    lifeline.wake(fd)
    with suppress(OSError):  # /proc may be read-only
        _write("/proc/self/comm", NAME)
    poll = select.poll()
    poll.register(fd, 0)
    poll.poll()
    end_pool(token)


def end_pool(token: str) -> None:
    """Kill the processes of a pool that has no supervisor, until some looks in a row find none.

    A living zygote first gets time to do that itself. Resource trackers get time when all other processes are gone.
    """
    began = alone_since = time.monotonic()
    quiet, pause, before = 0, _PAUSE, set[int]()
    while quiet < _QUIET_LOOKS:
        left, now = _Left(token), time.monotonic()
        if left.zygotes and now - began < _ZYGOTE_PATIENCE:
            quiet, alone_since = 0, now
            time.sleep(_PAUSE)
            continue
        doomed = left.zygotes + left.others
        if doomed:
            alone_since = now
        elif now - alone_since > deaths.TRACKER_PATIENCE:
            doomed = left.trackers
        killed = _end(doomed, token)
        quiet = 0 if killed or left.trackers else quiet + 1
        if not killed:
            pause = _PAUSE
        elif killed <= before:  # they are dying; or they hang in the kernel, for an unknown time
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            pause = _SHORTEST_PAUSE
        before = killed
        time.sleep(pause)


def _end(pids: list[int], token: str) -> set[int]:
    """Kill these processes. Return those that could be signalled."""
    if len(pids) > _MANY:
        for group in {group for pid in pids if (group := _group_of(pid))}:
            with suppress(OSError):  # gone, or not permitted
                os.killpg(group, signal.SIGKILL)
    return {pid for pid in pids if _kill(pid, token)}


def _group_of(pid: int) -> int | None:
    with suppress(OSError):  # gone
        return os.getpgid(pid)
    return None


def _kill(pid: int, token: str) -> bool:
    with suppress(OSError):  # gone by now; or a set-uid program, which this user may not kill
        pidfd = os.pidfd_open(pid)
        try:
            if mark.is_on(pid, token):  # no other process has got this pid meanwhile
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False


def _is_zygote(pid: int, token: str) -> bool:
    """Return whether a process is a zygote. A fork of a zygote may have the same name, but does not lead a session."""
    return (
        os.getsid(pid) == pid
        and mark.owner_of(pid, token) in (None, mark.ZYGOTES)
        and _read(f"/proc/{pid}/comm") == ZYGOTE_NAME
    )


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
