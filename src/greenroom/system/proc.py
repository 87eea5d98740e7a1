"""Reading ``/proc`` (proc(5)). Every function raises ``OSError`` when the process is gone.

And when there are no fds left to read with: see :func:`is_out_of_fds`.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from typing import NamedTuple

__all__ = [
    "MemoryParts",
    "Stat",
    "children",
    "environ_has",
    "environ_value",
    "is_out_of_fds",
    "is_resource_tracker",
    "memory_parts",
    "pids",
    "pss_mb",
    "realtime_limit",
    "rss_mb",
    "runs_on",
    "schedule",
    "stat",
    "thread_count",
    "thread_names",
]

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
_SIGKILL_BIT = 1 << (signal.SIGKILL - 1)


class Stat(NamedTuple):
    state: str
    """One letter: R running, S sleeping, D in the kernel, T stopped, t traced, Z zombie."""
    ppid: int
    started: int
    """Clock ticks since the machine's start: with the pid, it tells a process from any other."""


class MemoryParts(NamedTuple):
    """Memory of a process, in MiB."""

    private: float
    """Pages that nobody else has: what the end of the process gives back."""
    shared: float
    """Pages that others have, too: the zygote's, libraries'."""
    pss: float
    """A page shared by n processes counts 1/n: these add up over processes."""


def is_out_of_fds(error: OSError) -> bool:
    """Whether this says nothing about the process: there was no fd left to look at it with."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def stat(pid: int) -> Stat:
    # The name may hold spaces and brackets, so the fields are counted from its last bracket.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return Stat(fields[0].decode(), int(fields[1]), int(fields[19]))


def runs_on(pid: int) -> bool:
    """Whether a process is neither dead, nor stopped, nor about to die of a signal that it was sent.

    The kernel turns every deadly signal into a pending SIGKILL at once; the death itself can take
    milliseconds more, in which the process still looks alive.
    """
    for line in _read(f"/proc/{pid}/status").splitlines():
        name, _, value = line.partition(b":\t")
        if name == b"State" and value[:1] in b"TtZX":
            return False
        if name in (b"SigPnd", b"ShdPnd") and int(value, 16) & _SIGKILL_BIT:
            return False
    return True


def children(pid: int) -> list[int]:
    """The direct children of a process, of all its threads."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    except FileNotFoundError:
        # A kernel without CONFIG_PROC_CHILDREN (or the process is gone: then this finds nothing).
        return [other for other in pids() if _ppid_or_zero(other) == pid]
    return found


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def thread_names() -> dict[int, str]:
    """The native name of each thread of this process, by thread id."""
    names = {}
    for task in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            names[int(task)] = _read(f"/proc/self/task/{task}/comm").decode("utf-8", "replace").strip()
    return names


def rss_mb(pid: int) -> float:
    """Resident memory, shared pages included. Cheap: the kernel keeps the count."""
    return int(_read(f"/proc/{pid}/statm").split()[1]) * _PAGE_MB


def pss_mb(pid: int) -> float:
    """Proportional memory: a page shared by n processes counts 1/n. Walks the page tables."""
    return _smaps_kb(pid, b"Pss:") / 1024


def private_mb(pid: int) -> float:
    """Memory that no other process shares: what its end would give back. Walks the page tables."""
    return _smaps_kb(pid, b"Private_") / 1024


def memory_parts(pid: int) -> MemoryParts:
    """What a process has to itself and what it shares. Walks the page tables."""
    parts = dict.fromkeys((b"Private_Clean", b"Private_Dirty", b"Shared_Clean", b"Shared_Dirty", b"Pss"), 0)
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        name, _, value = line.partition(b":")
        if name in parts:
            parts[name] = int(value.split()[0])
    clean_private, private, clean_shared, shared, pss = (kb / 1024 for kb in parts.values())
    return MemoryParts(clean_private + private, clean_shared + shared, pss)


def thread_count(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def schedule(pid: int) -> tuple[float, float]:
    """Seconds that the main thread ran on a CPU, and seconds that it was ready to but had to wait."""
    fields = _read(f"/proc/{pid}/schedstat").split()
    return int(fields[0]) / 1e9, int(fields[1]) / 1e9


def environ_has(pid: int, entry: bytes) -> bool:
    """Whether a process was started with this ``NAME=value`` in its environment."""
    return entry in _read(f"/proc/{pid}/environ").split(b"\0")


def environ_value(pid: int, name: bytes) -> bytes | None:
    """The value that a variable of its environment had when a process was started."""
    entries = (entry.partition(b"=") for entry in _read(f"/proc/{pid}/environ").split(b"\0"))
    return next((value for found, _, value in entries if found == name), None)


def is_resource_tracker(pid: int) -> bool:
    """Tell a tracker of ``multiprocessing``, which removes what dead processes have left, and ends. Never raises."""
    try:
        return b"multiprocessing.resource_tracker" in _read(f"/proc/{pid}/cmdline")
    except OSError:  # gone by now
        return False


def realtime_limit(pid: int) -> int | None:
    """The soft RLIMIT_RTTIME of a process, dead ones that are not yet reaped included; ``None`` if it has none."""
    for line in _read(f"/proc/{pid}/limits").splitlines():
        if line.startswith(b"Max realtime timeout"):
            value = line.split()[3]
            return int(value) if value.isdigit() else None
    return None


def _smaps_kb(pid: int, key: bytes) -> int:
    """The sum of the lines that begin like this."""
    lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(key))


def _ppid_or_zero(pid: int) -> int:
    try:
        return stat(pid).ppid
    except OSError:
        return 0


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = [os.read(fd, 65536)]
        while chunks[-1]:
            chunks.append(os.read(fd, 65536))
        return b"".join(chunks)
    finally:
        os.close(fd)
