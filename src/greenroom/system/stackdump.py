"""The Python stacks of a process, on request and from outside.

``faulthandler`` writes them in its C-level signal handler, so it works where a Python handler never
runs: in a blocked loop, under a GIL held by C code, in a deadlock. It writes into a memfd that the
process made for itself; the supervisor reads it through ``/proc/PID/fd``, which costs no fd until
a dump is wanted. The signal is a real-time one, which applications hardly ever use.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal

__all__ = ["MAX_BYTES", "SIGNAL", "install", "is_complete", "open_of", "read", "request"]

SIGNAL = signal.SIGRTMIN + 7
_NAME = "greenroom-stackdump"
MAX_BYTES = 64 * 1024
_libc = ctypes.CDLL(None)


def install() -> int:
    """Make this process dump its stacks at :data:`SIGNAL`; returns the fd they are written to."""
    fd = os.memfd_create(_NAME)
    faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)
    return fd


def request(pid: int) -> None:
    """Have a child, which has not been reaped, dump its stacks. Does nothing if it is dead.

    The signal goes to its main thread. Sent to the process, any thread might take it, and the main one,
    once it is continued, could stop the process again in the midst of the dump.
    """
    _libc.tgkill(pid, pid, int(SIGNAL))
    # A stopped process handles the signal only when it is continued, and before anything else.
    _libc.kill(pid, int(signal.SIGCONT))


def open_of(pid: int, fd: int) -> int:
    """Open another process's dump for reading. Raises ``OSError`` if it is gone, or not ours to read."""
    path = f"/proc/{pid}/fd/{fd}"
    if not os.readlink(path).startswith(f"/memfd:{_NAME}"):
        # It has closed its fds, and the number is another's: a pipe, say, that cannot be read like a file.
        raise FileNotFoundError(f"{path} is not a stack dump")
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def read(fd: int) -> str:
    """Return the text of a dump so far; none if the fd cannot be read like a file."""
    try:
        return os.pread(fd, MAX_BYTES, 0).decode("utf-8", "replace")
    except OSError:  # between the look at its name and its opening, the process has put a pipe in its place
        return ""


def is_complete(dump: str) -> bool:
    """Whether it was written to its end: the main thread comes last, and its outermost frame at the very end.

    Nothing else marks the end, and a busy machine may interrupt the writing anywhere.
    """
    return dump.endswith((" in _run_module_as_main\n", "  ...\n"))
