"""Ending a process: first its stacks, then SIGKILL."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable

from ..system import proc, stackdump
from .clock import AwakeClock, Timer

__all__ = ["Killer"]

_logger = logging.getLogger("greenroom")

KILL_TIMEOUT = 5.0
"""Seconds from a SIGKILL to the death; a process in an uninterruptible system call takes longer, which is told."""
_LOOK_AGAIN = 0.004


class Killer:
    """Ends one process by its pidfd, so that never another one with the same pid is hit."""

    def __init__(self, pid: int, pidfd: int, clock: AwakeClock, on_dump: Callable[[str], object]) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._clock = clock
        self._on_dump = on_dump
        self._is_over = False
        self._complaint: Timer | None = None

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._complain_later()

    def dump_and_kill(self, dump_fd: int, patience: float) -> None:
        """Have it write its stacks, and kill it when it has, or when patience (seconds) is at an end."""
        try:
            fd = stackdump.open_of(self._pid, dump_fd)
        except OSError:  # gone; or it has changed its user, and is not ours to look into any more
            self.kill()
            return
        self._signal(stackdump.SIGNAL)
        # A stopped process handles the signal only when it is continued, and before anything else.
        self._signal(signal.SIGCONT)
        self._await_dump(fd, time.monotonic() + patience, -1)

    def is_dead(self) -> None:
        """There is nothing to kill any more."""
        self._is_over = True
        if self._complaint is not None:
            self._complaint.cancel()

    def _await_dump(self, fd: int, give_up: float, size_before: int) -> None:
        # There is no event for the end of a write to a file, so its size is looked at.
        size = os.fstat(fd).st_size
        if size == size_before > 0 or time.monotonic() > give_up or self._is_over:
            if not self._is_over:
                self._on_dump(stackdump.read(fd))
                self.kill()
            os.close(fd)
            return
        asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._await_dump, fd, give_up, size)

    def _signal(self, signum: int) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, signum)
        except ProcessLookupError:
            return  # dead already, which the pidfd tells
        except PermissionError:
            _logger.error("process %d may not be signalled: it runs as another user", self._pid)

    def _complain_later(self) -> None:
        self._complaint = self._clock.call_later(KILL_TIMEOUT, self._complain)

    def _complain(self) -> None:
        try:
            state = proc.stat(self._pid).state
        except OSError:
            state = "?"
        _logger.error(
            "process %d is still there %.0f s after SIGKILL, in state %s (D: a system call that cannot be interrupted)",
            self._pid,
            KILL_TIMEOUT,
            state,
        )
        self.kill()
