"""A process by its pidfd: is it alive, how did it end, and ending it, with its stacks taken first."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
from collections.abc import Callable
from typing import NamedTuple

from ..system import proc
from .clock import AwakeClock, Timer
from .dumps import DumpTaker
from .exits import ExitStatus
from .stalls import DumpTime

__all__ = ["Burial", "Handle"]

_logger = logging.getLogger("greenroom")

KILL_TIMEOUT = 5.0
"""Seconds from a SIGKILL to the death; a process in an uninterruptible system call takes longer, which is told."""


class Burial(NamedTuple):
    """What is known of a process when it has been reaped."""

    status: ExitStatus
    cpu_seconds: float
    peak_memory_mb: float


class Handle:
    """One process of the operating system, held by its pidfd: no other one with the same pid is ever hit.

    ``on_death`` is called once, in the event in which the kernel tells of the death.
    """

    def __init__(self, pid: int, pidfd: int, clock: AwakeClock, on_death: Callable[[], object]) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, on_death)
        self._is_dead = False
        self._dump: DumpTaker | None = None
        self._complaint: Timer | None = None

    def is_alive(self) -> bool:
        """Ask the kernel, now: it is there, and nothing is on its way that will keep it from a job."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        try:
            # In this order: while the pidfd says that it lives, or lies unburied, the pid is its own.
            runs_on = proc.runs_on(self.pid)
        except OSError as error:
            runs_on = proc.is_out_of_fds(error)  # then there is only the pidfd to ask
        return runs_on and not poll.poll(0)

    def bury(self) -> Burial | None:
        """Reap it as its parent, by adoption or by birth; ``None`` if it is not dead yet.

        Raises ``ChildProcessError`` if it is not this process's child, or was reaped. Asked by its pidfd
        and not by its pid: a lost zygote may have reaped it as its last act, and the pid may be another's
        by now, even that of a child of somebody else in this process.
        """
        found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return None
        _, _, usage = os.wait4(self.pid, 0)  # still its zombie, so still its pid
        exited = found.si_code == os.CLD_EXITED
        status = ExitStatus(found.si_status, None) if exited else ExitStatus(None, found.si_status)
        return Burial(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)

    def close(self) -> None:
        os.close(self._pidfd)

    # --- ending it -------------------------------------------------------------------------------

    def kill(self) -> None:
        """End it now. Of stacks that it was about to write, those that are there are handed on."""
        if self._dump is not None:
            self._dump.finish()
        self._kill()

    def dump_and_kill(self, dump_fd: int, time: DumpTime, on_dump: Callable[[str], object]) -> None:
        """Have it write its stacks, and kill it when it has, or when its time for that is over."""

        def on_end(stacks: str) -> None:
            on_dump(stacks)
            self._kill()

        try:
            self._dump = DumpTaker(self.pid, dump_fd, time, self._clock, on_end)
        except OSError:  # gone; or it has changed its user, and is not ours to look into any more
            self._kill()

    def has_died(self) -> None:
        """There is nothing to watch or to kill any more."""
        self._is_dead = True
        self._loop.remove_reader(self._pidfd)
        if self._dump is not None:
            self._dump.drop()
            self._dump = None  # it refers to this object
        if self._complaint is not None:
            self._complaint.cancel()

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        if not self._is_dead and self._complaint is None:
            self._complain_later()

    def _signal(self, signum: int) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, signum)
        except ProcessLookupError:
            return  # dead already, which the pidfd tells
        except PermissionError:
            _logger.error("process %d may not be signalled: it runs as another user", self.pid)

    def _complain_later(self) -> None:
        self._complaint = self._clock.call_later(KILL_TIMEOUT, self._complain)

    def _complain(self) -> None:
        try:
            state = proc.stat(self.pid).state
        except OSError:
            state = "?"
        _logger.error(
            "process %d is still there %.0f s after SIGKILL, in state %s (D: a system call that cannot be interrupted)",
            self.pid,
            KILL_TIMEOUT,
            state,
        )
        self._complaint = None
        self._kill()
