"""Dumps of a process's Python stacks, which another process requests.

``faulthandler`` writes a dump in its C-level signal handler. So dumps work where a Python handler never
runs: in a blocked loop, under a GIL that C code holds, in a deadlock. The dump goes into a memfd of the
process. The supervisor reads the memfd through ``/proc/PID/fd``, which costs no fd before a dump is
wanted. The signal is a real-time signal, since applications hardly ever use one.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import os
import signal
from contextlib import suppress
from functools import cache

from .. import signal_names

__all__ = ["MAX_BYTES", "SIGNAL", "install", "is_complete", "open_of", "read", "request", "write"]

SIGNAL = signal_names.DUMP
_NAME = "greenroom-stackdump"
MAX_BYTES = 64 * 1024
_libc = ctypes.CDLL(None)


def install() -> int:
    """Have this process dump its stacks at :data:`SIGNAL`. Return the fd of the dump."""
    fd = os.memfd_create(_NAME)
    # The reader empties the file before each dump. Then the dump must begin at its start, and not where the last ended.
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)
    return fd


def write(fd: int) -> None:
    """Write the stacks of this process into its dump, unless its code has closed the dump.

    The caller holds the GIL, so no other thread changes its frames meanwhile.
    """
    with suppress(OSError):
        if _is_dump(f"/proc/self/fd/{fd}"):
            faulthandler.dump_traceback(file=fd, all_threads=True)


def request(pid: int, *, is_final: bool = True) -> None:
    """Have a child dump its stacks. Does nothing if the child is dead. The child must not be reaped yet.

    ``is_final`` continues a stopped process, which is killed after the dump.

    The signal goes to the main thread. A signal to the process could reach any thread. The main thread, once
    continued, could then stop the process again in the middle of the dump.
    """
    _libc.tgkill(pid, pid, int(SIGNAL))
    if is_final:
        # A stopped process handles the signal only after SIGCONT, and before anything else.
        _libc.kill(pid, int(signal.SIGCONT))


def open_of(pid: int, fd: int) -> int:
    """Empty another process's dump, and open it for reading.

    Raises ``OSError`` if the dump is gone, or this user may not read it.
    """
    path = f"/proc/{pid}/fd/{fd}"
    # This calls nothing of the file's file system. That may be one of the other process, which never answers.
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not _is_dump(f"/proc/self/fd/{place}") or _mount_of(place) != _mount_of_memfds():
            raise FileNotFoundError(f"{path} is not a stack dump")
        dump = os.open(f"/proc/self/fd/{place}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(place)
    try:
        os.ftruncate(dump, 0)
    except OSError:
        os.close(dump)
        raise
    return dump


def _is_dump(path: str) -> bool:
    """Return false if the process has closed its fds, and used the number again, for example for a pipe."""
    return os.readlink(path).startswith(f"/memfd:{_NAME}")


@cache
def _mount_of_memfds() -> str:
    """Return the mount of the kernel's own that holds each memfd. A file elsewhere can have the name of a memfd."""
    fd = os.memfd_create(_NAME)
    try:
        return _mount_of(fd)
    finally:
        os.close(fd)


def _mount_of(fd: int) -> str:
    with open(f"/proc/self/fdinfo/{fd}") as file:
        return next(line for line in file if line.startswith("mnt_id:"))


def read(fd: int) -> str:
    """Return the text of a dump so far; an empty text if the fd cannot be read like a file."""
    try:
        return os.pread(fd, MAX_BYTES, 0).decode("utf-8", "replace")
    except OSError:  # between readlink and open, the process has put a pipe in the place of its dump
        return ""


def is_complete(dump: str) -> bool:
    """Return whether a dump is complete: the main thread is last, and its outermost frame ends the dump.

    Nothing else marks the end. A busy machine may interrupt the writing anywhere.
    """
    return dump.endswith((" in _run_module_as_main\n", "  ...\n"))
