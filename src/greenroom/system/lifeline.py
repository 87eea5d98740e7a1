"""Lifeline: a pipe that never carries data. At its hang-up the kernel sends signals.

The supervisor alone holds the write end. The child arms its read end with ``O_ASYNC`` and
``F_SETSIG(SIGKILL)`` (fcntl(2)). The last write end closes when the supervisor closes it or dies. Then the
kernel kills the child, even one that is stuck in C code, holds the GIL or is stopped.

The kernel keeps signal and owner with the open file. So it also kills a program that the child executes, as long as
the fd stays open. A session opens the pipe once more, for its process group, which gets SIGTERM.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal

__all__ = ["arm", "arm_for_group", "keep_in_exec", "only_wake", "wake"]


def arm(fd: int) -> None:
    """Have the kernel kill this process when the other end of the pipe closes.

    Does not return if the other end is closed already.
    """
    _send(fd, signal.SIGKILL, os.getpid())
    # A hang-up before the arming sends no signal. So poll once, after the arming.
    if _has_hung_up(fd):
        os.kill(os.getpid(), signal.SIGKILL)


def arm_for_group(fd: int) -> int:
    """Have the kernel send SIGTERM to this process's group at the hang-up. Return a new fd that must stay open.

    This process must lead the group. SIGTERM ends the group where no supervisor and no zygote is left to kill it.
    SIGKILL would also kill a resource tracker of ``multiprocessing`` in the group. A resource tracker ignores SIGTERM,
    and removes the shared memory of dead processes before it ends. Raises ``OSError``.
    """
    # An open file has one signal and one owner, so this opens the same pipe again.
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
    try:
        _send(other, signal.SIGTERM, -os.getpgrp())
    except BaseException:
        os.close(other)
        raise
    return other


def keep_in_exec(*fds: int) -> None:
    """Have the kernel keep the lifeline if this process executes another program."""
    for fd in fds:
        os.set_inheritable(fd, True)


def only_wake(fd: int) -> None:
    """Have the hang-up of an armed fd send SIGCONT instead of SIGKILL, so that this process can clean up."""
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGCONT)


def wake(fd: int) -> None:
    """Have the hang-up send SIGCONT to this process. Otherwise a stopped process would not notice the hang-up."""
    _send(fd, signal.SIGCONT, os.getpid())


def _send(fd: int, signum: int, owner: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETOWN, owner)
    fcntl.fcntl(fd, fcntl.F_SETSIG, signum)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def _has_hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))
