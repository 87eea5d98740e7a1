"""Reports of the kernel's OOM killer: the number of its kills, and its victims where the kernel's log is readable."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from .cgroup_levels import own_cgroups

__all__ = ["kills", "names_victim"]

_VICTIM = re.compile(rb"Killed process (\d+) ")


def kills() -> int:
    """Return the number of OOM kills so far, below this process's own cgroup (v2) or else on the whole machine.

    Raises ``OSError`` if the kernel shows neither.
    """
    try:
        return _count(f"/sys/fs/cgroup{own_cgroups()['']}/memory.events")
    except (OSError, KeyError):
        return _count("/proc/vmstat")


def names_victim(pid: int) -> bool | None:
    """Return whether the kernel's log names a process as a victim; ``None`` if this process may not read the log."""
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # most users, and most containers, may not read the log
    try:
        return pid in _victims(fd)
    finally:
        os.close(fd)


def _victims(fd: int) -> set[int]:
    found = set[int]()
    with suppress(BlockingIOError):  # the end of the log
        while True:
            with suppress(BrokenPipeError):  # the kernel has overwritten this record; the next one follows
                match = _VICTIM.search(os.read(fd, 8192))
                if match:
                    found.add(int(match[1]))
    return found


def _count(path: str) -> int:
    with open(path) as lines:
        for line in lines:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    raise FileNotFoundError(f"{path} does not count OOM kills")
