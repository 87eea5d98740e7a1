"""Dumps of a process's Python stacks, which another process requests.

``faulthandler`` writes a dump in its C-level signal handler. So dumps work where a Python handler never
runs: in a blocked loop, under a GIL that C code holds, in a deadlock. The dump goes into a memfd of the
process. The supervisor reads the memfd through ``/proc/PID/fd``, which costs no fd before a dump is
wanted. The signal is a real-time signal, since applications hardly ever use one.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal

from .. import signal_names

__all__ = ["MAX_BYTES", "SIGNAL", "install", "is_complete", "open_of", "read", "request"]

SIGNAL = signal_names.DUMP
_NAME = "greenroom-stackdump"
MAX_BYTES = 64 * 1024
_libc = ctypes.CDLL(None)


def install() -> int:
    """Have this process dump its stacks at :data:`SIGNAL`. Return the fd of the dump."""
    fd = os.memfd_create(_NAME)
    faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)
    return fd


def request(pid: int) -> None:
    """Have a child dump its stacks. Does nothing if the child is dead. The child must not be reaped yet.

    The signal goes to the main thread. A signal to the process could reach any thread. The main thread, once
    continued, could then stop the process again in the middle of the dump.
    """
    _libc.tgkill(pid, pid, int(SIGNAL))
    # A stopped process handles the signal only after SIGCONT, and before anything else.
    _libc.kill(pid, int(signal.SIGCONT))


def open_of(pid: int, fd: int) -> int:
    """Open another process's dump for reading. Raises ``OSError`` if the dump is gone, or this user may not read it."""
    path = f"/proc/{pid}/fd/{fd}"
    if not os.readlink(path).startswith(f"/memfd:{_NAME}"):
        # The process has closed its fds, and used the number again, for example for a pipe.
        raise FileNotFoundError(f"{path} is not a stack dump")
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


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
