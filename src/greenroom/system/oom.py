"""What the kernel tells of its OOM killer: how often it struck, and, where its log may be read, whom."""

from __future__ import annotations

import os
import re
from contextlib import suppress

__all__ = ["kills", "names_victim"]

_CGROUP_EVENTS = "/sys/fs/cgroup{}/memory.events"
_VICTIM = re.compile(rb"Killed process (\d+) ")


def kills() -> int:
    """OOM kills so far: below this process's own cgroup (v2), or else on the whole machine.

    Raises ``OSError`` if neither is told.
    """
    try:
        return _count(_CGROUP_EVENTS.format(_own_cgroup()))
    except OSError:
        return _count("/proc/vmstat")


def names_victim(pid: int) -> bool | None:
    """Whether the kernel's log names a process as a victim; ``None`` if the log may not be read."""
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # as it is for most users, and in most containers
    try:
        return pid in _victims(fd)
    finally:
        os.close(fd)


def _victims(fd: int) -> set[int]:
    found = set[int]()
    with suppress(BlockingIOError):  # the end of the log
        while True:
            with suppress(BrokenPipeError):  # a record was overwritten before it was read; the next one is there
                match = _VICTIM.search(os.read(fd, 8192))
                if match:
                    found.add(int(match[1]))
    return found


def _own_cgroup() -> str:
    with open("/proc/self/cgroup") as lines:
        for line in lines:
            if line.startswith("0::"):
                return line[3:].strip().rstrip("/")
    raise FileNotFoundError("this process is in no cgroup v2")


def _count(path: str) -> int:
    with open(path) as lines:
        for line in lines:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    raise FileNotFoundError(f"{path} does not count OOM kills")
