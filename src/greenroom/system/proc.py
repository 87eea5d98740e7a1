"""Readers of ``/proc`` (proc(5)).

A function raises ``OSError`` when the process is gone, and when no fds are left (see :func:`is_out_of_fds`).
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

__all__ = [
    "MemoryParts",
    "Stat",
    "anonymous_mb",
    "capabilities",
    "children",
    "cpu_seconds",
    "environ_has",
    "environ_value",
    "faulted_mb",
    "has_begun",
    "is_out_of_fds",
    "is_tcp",
    "machine_threads",
    "memory_parts",
    "page_tables_mb",
    "pids",
    "pss_mb",
    "realtime_limit",
    "rss_mb",
    "runs_on",
    "schedule",
    "schedule_of_threads",
    "seccomp_filters",
    "sockets",
    "stat",
    "thread_count",
    "thread_names",
    "tracer_of",
    "unheard_signals",
    "wake_ups",
]

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_SIGKILL_BIT = 1 << (signal.SIGKILL - 1)


class Stat(NamedTuple):
    """Fields of ``/proc/PID/stat``."""

    state: str
    """One letter: R running, S sleeping, D in the kernel, T stopped, t traced, Z zombie."""
    ppid: int
    group: int
    started: int
    """Clock ticks since the machine's start. Pid and start together identify a process."""


class MemoryParts(NamedTuple):
    """Memory of a process, in MiB."""

    private: float
    """Pages of this process alone, and its page tables: its end frees them."""
    shared: float
    """Pages that other processes have, too, such as pages of the zygote and of libraries."""
    pss: float
    """Proportional memory, which adds up over processes: a page that n processes share counts 1/n."""


def is_out_of_fds(error: OSError) -> bool:
    """Return whether an error means that no fd was left. Such an error says nothing about the process."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def stat(pid: int) -> Stat:
    # The process's name may hold spaces and brackets. The other fields follow the last bracket.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return Stat(fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[19]))


def has_begun(pid: int) -> bool:
    """Return whether a living process has a command line. It has none for a moment while it executes a program."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return fields[0] in b"ZX" or fields[45] != b"0"


def faulted_mb(pid: int) -> float:
    """Return the memory (MiB) that a process has loaded or copied since its fork, at one page for each fault."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (int(fields[7]) + int(fields[9])) * _PAGE_MB


def runs_on(pid: int) -> bool:
    """Return whether a process is neither dead, nor stopped, nor about to die of a signal.

    The kernel turns a deadly signal into a pending SIGKILL at once. The death itself can take milliseconds more,
    and the process still looks alive meanwhile.
    """
    for line in _read(f"/proc/{pid}/status").splitlines():
        name, _, value = line.partition(b":\t")
        if name == b"State" and value[:1] in b"TtZX":
            return False
        if name in (b"SigPnd", b"ShdPnd") and int(value, 16) & _SIGKILL_BIT:
            return False
    return True


def children(pid: int) -> list[int]:
    """Return the direct children of a process, from all its threads."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    except FileNotFoundError:
        # The kernel lacks CONFIG_PROC_CHILDREN, or the process is gone. In the second case the list is empty.
        return [other for other in pids() if _ppid_or_zero(other) == pid]
    return found


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def thread_names() -> dict[int, str]:
    """Return the native name of each thread of this process, by thread id."""
    names = {}
    for task in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            names[int(task)] = _read(f"/proc/self/task/{task}/comm").decode("utf-8", "replace").strip()
    return names


def machine_threads() -> int:
    """Return the number of threads on the whole machine. The kernel keeps the count."""
    return int(_read("/proc/loadavg").split()[3].partition(b"/")[2])


def rss_mb(pid: int) -> float:
    """Return the resident memory (MiB), with shared pages. The kernel keeps the count, so the call is cheap."""
    return int(_read(f"/proc/{pid}/statm").split()[1]) * _PAGE_MB


def anonymous_mb(pid: int) -> float:
    """Return the resident memory (MiB) that a forked process inherits: all but the pages of files and shared memory."""
    _size, resident, of_files, *_ = _read(f"/proc/{pid}/statm").split()
    return (int(resident) - int(of_files)) * _PAGE_MB


def pss_mb(pid: int) -> float:
    """Return the proportional memory (MiB): a page that n processes share counts 1/n. Walks the page tables."""
    return _smaps_kb(pid, b"Pss:") / 1024


def private_mb(pid: int) -> float:
    """Return the memory (MiB) that no other process shares, which the process's end frees. Walks the page tables.

    It includes the page tables, which no reading of mapped memory shows: 2 MiB for each GiB of a large image.
    """
    return _smaps_kb(pid, b"Private_") / 1024 + page_tables_mb(pid)


def page_tables_mb(pid: int) -> float:
    """Return the memory (MiB) of a process's page tables."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"VmPTE:"):
            return int(line.split()[1]) / 1024
    return 0.0


def memory_parts(pid: int) -> MemoryParts:
    """Return the private, shared and proportional memory of a process. Walks the page tables.

    Private memory and PSS include the page tables: see :func:`private_mb`.
    """
    parts = dict.fromkeys((b"Private_Clean", b"Private_Dirty", b"Shared_Clean", b"Shared_Dirty", b"Pss"), 0)
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        name, _, value = line.partition(b":")
        if name in parts:
            parts[name] = int(value.split()[0])
    clean_private, private, clean_shared, shared, pss = (kb / 1024 for kb in parts.values())
    tables = page_tables_mb(pid)
    return MemoryParts(clean_private + private + tables, clean_shared + shared, pss + tables)


def thread_count(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def tracer_of(pid: int) -> int:
    """Return the pid of the debugger that traces a process, 0 for none. A traced zombie cannot be reaped."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"TracerPid:"):
            return int(line.split()[1])
    return 0


def schedule(pid: int) -> tuple[float, float]:
    """Return the seconds that the main thread ran on a CPU, and the seconds that it waited for one."""
    fields = _read(f"/proc/{pid}/schedstat").split()
    return int(fields[0]) / 1e9, int(fields[1]) / 1e9


def wake_ups(pid: int) -> int:
    """Return how often the main thread of a process has waited for something else than a CPU, and went on."""
    return int(_status(pid)[b"voluntary_ctxt_switches"])


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, and of its children that were reaped."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK


def schedule_of_threads(pid: int) -> dict[int, tuple[float, float]]:
    """Return for each thread the seconds that it ran on a CPU, and the seconds that it waited for one."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            ran, waited, _ = _read(f"/proc/{pid}/task/{task}/schedstat").split()
            found[int(task)] = int(ran) / 1e9, int(waited) / 1e9
    return found


def seccomp_filters(pid: int) -> int:
    """Return the number of seccomp filters (seccomp(2)) of a process. Its children have as many, and never fewer.

    Before Linux 5.10, the kernel says only whether there are any.
    """
    values = _status(pid)
    return int(values.get(b"Seccomp_filters", values.get(b"Seccomp", b"0")))


def capabilities(pid: int) -> int:
    """Return the permitted capabilities (capabilities(7)) of a process, a bit for each."""
    return int(_status(pid)[b"CapPrm"], 16)


def sockets(pid: int, most: int | None = None) -> dict[int, str]:
    """Return the inodes of the sockets that a process has open, each with a path in ``/proc`` that stands for it.

    ``most`` is the largest number of open files to look at.
    """
    found = dict[int, str]()
    with os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in islice(entries, most):
            with suppress(FileNotFoundError):  # closed meanwhile
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found[int(target[8:-1])] = entry.path
    return found


def is_tcp(path: str, inode: int) -> bool:
    """Return whether the file at a path of :func:`sockets` is still this socket, and a TCP socket."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)  # which asks no file system
    except FileNotFoundError:  # closed meanwhile
        return False
    try:
        # A file of FUSE, which may have the number by now, would be asked for its attribute, and need not answer.
        place = f"/proc/self/fd/{fd}"
        is_same = os.readlink(place) == f"socket:[{inode}]"
        return is_same and os.getxattr(place, "system.sockprotoname") in (b"TCP\0", b"TCPv6\0")
    finally:
        os.close(fd)


def environ_has(pid: int, entry: bytes) -> bool:
    """Return whether the environment at a process's start had this entry (``NAME=value``)."""
    return entry in _read(f"/proc/{pid}/environ").split(b"\0")


def environ_value(pid: int, name: bytes) -> bytes | None:
    """Return the value of a variable in the environment at a process's start; ``None`` if it was not set."""
    entries = (entry.partition(b"=") for entry in _read(f"/proc/{pid}/environ").split(b"\0"))
    return next((value for found, _, value in entries if found == name), None)


def unheard_signals(pid: int) -> int:
    """Return the signals that a process ignores or blocks, a bit for each: bit 0 is signal 1."""
    values = _status(pid)
    return int(values.get(b"SigIgn", b"0"), 16) | int(values.get(b"SigBlk", b"0"), 16)


def realtime_limit(pid: int) -> int | None:
    """Return the soft RLIMIT_RTTIME of a process (µs), zombies included; ``None`` if it has none."""
    for line in _read(f"/proc/{pid}/limits").splitlines():
        if line.startswith(b"Max realtime timeout"):
            value = line.split()[3]
            return int(value) if value.isdigit() else None
    return None


def _smaps_kb(pid: int, key: bytes) -> int:
    """Return the sum (kB) of the lines that begin with ``key``."""
    lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(key))


def _status(pid: int) -> dict[bytes, bytes]:
    return dict(line.split(b":\t", 1) for line in _read(f"/proc/{pid}/status").splitlines() if b":\t" in line)


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
