"""The lifeline: a pipe that never carries data, whose hang-up the kernel answers with SIGKILL.

The supervisor alone holds the write end. The child arms its read end with ``O_ASYNC`` and
``F_SETSIG(SIGKILL)`` (fcntl(2)): when the last write end closes, because the supervisor closed it
or died, the kernel kills the child, even one that is stuck in C code, holds the GIL or is stopped.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal

__all__ = ["arm", "only_wake"]


def arm(fd: int) -> None:
    """Tie this process's life to the other end of the pipe; does not return if that is gone already."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    # A hang-up that came before the arming sends no signal: look once, now that it is armed.
    poll = select.poll()
    poll.register(fd, 0)
    if poll.poll(0):
        os.kill(os.getpid(), signal.SIGKILL)


def only_wake(fd: int) -> None:
    """Let this process outlive the other end, to clean up after it; stopped, it is continued for that."""
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGCONT)
