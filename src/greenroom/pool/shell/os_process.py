"""Process of the operating system, held by its pidfd: its life, its stacks, its exit status, and its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ...log_fields import log_fields
from ...system import proc
from ..core.exit_verdict import ExitStatus
from ..core.stalls import DumpTime
from .clock import AwakeClock
from .dumps import DumpTaker

__all__ = ["OsProcess", "Reaping"]

_PROCESS_GROUP = 1 << 2
"""``PIDFD_SIGNAL_PROCESS_GROUP``: signal the group whose number is the pid of the process (pidfd_send_signal(2))."""

_logger = logging.getLogger("greenroom")


class Reaping(NamedTuple):
    """Exit status and resource usage of a reaped process, as the kernel reports them."""

    status: ExitStatus
    cpu_seconds: float
    peak_memory_mb: float


class OsProcess:
    """Process of the operating system, held by its pidfd. A signal can never reach a later process with the same pid.

    ``on_death`` is called once, when the kernel reports the death.
    """

    def __init__(self, pid: int, pidfd: int, clock: AwakeClock, on_death: Callable[[], object]) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, on_death)
        self._dump: DumpTaker | None = None

    def is_alive(self) -> bool:
        """Ask the kernel now. Return true if the process is neither dead nor stopped, and has no pending SIGKILL."""
        try:
            # Before the pidfd is polled: if the pidfd then reports no death, the pid was its own at this read.
            runs_on = proc.runs_on(self.pid)
        except OSError as error:
            runs_on = proc.is_out_of_fds(error)  # without fds, only the pidfd can be asked
        return runs_on and not self.is_dead()

    def reap(self) -> Reaping | None:
        """Reap the process as its parent. Return ``None`` before the death of the process.

        Raises ``ChildProcessError`` if the process is not a child of the supervisor, or was reaped before. The first
        wait uses the pidfd: a zygote may have reaped the process just before its own death. Then the pid may belong to
        another process, even to a child that other code of the supervisor has started.
        """
        found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return None
        _, _, usage = os.wait4(self.pid, 0)  # WNOWAIT has left the zombie, so the pid is still its own
        exited = found.si_code == os.CLD_EXITED
        status = ExitStatus(found.si_status, None) if exited else ExitStatus(None, found.si_status)
        return Reaping(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)

    def close(self) -> None:
        """Close the pidfd of a process that is dead."""
        os.close(self._pidfd)

    def reap_when_dead(self) -> None:
        """Reap a process that is given up alive, when it dies."""
        self._loop.remove_reader(self._pidfd)
        self._loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        with suppress(ChildProcessError):  # the process is a child of its zygote, which reaps it
            self.reap()
        self.close()

    # --- kill and dump ---------------------------------------------------------------------------

    def kill(self) -> None:
        """Send SIGKILL. A dump that goes on ends with the text that is written so far."""
        if self._dump is not None:
            self._dump.finish()
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return  # the process is dead already, and the pidfd reports that
        except PermissionError:
            extra = log_fields("kill_refused", job_pid=self.pid)
            _logger.error("process %d cannot be signalled: it runs as another user", self.pid, extra=extra)

    def kill_group(self) -> None:
        """Send SIGKILL to the process group that the process leads. A process that is being forked there cannot escape.

        The group may include resource trackers of ``multiprocessing``. After a tracker's death, shared memory is left.
        """
        with suppress(ProcessLookupError, PermissionError):  # there is no such group, or nothing in it may be killed
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL, None, _PROCESS_GROUP)
            except OSError as error:
                # EINVAL: Linux before 6.9. The pid cannot name another group until the process is reaped.
                if error.errno == errno.EINVAL and not self.is_dead():
                    os.killpg(self.pid, signal.SIGKILL)

    def is_dead(self) -> bool:
        """Ask the kernel now. Return true if the process has ended, also if nobody has read its exit status."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def dump(self, dump_fd: int, time: DumpTime, on_dump: Callable[[str], object]) -> None:
        """Request the stacks of the process. ``on_dump`` gets the stacks when they are written or the time is over."""
        try:
            self._dump = DumpTaker(self.pid, dump_fd, time, self._clock, on_dump)
        except OSError:  # the process is gone, or runs as another user and may not be read any more
            on_dump("")

    def has_died(self) -> None:
        """Stop watching: the process is dead."""
        self._loop.remove_reader(self._pidfd)
        if self._dump is not None:
            self._dump.drop()
            self._dump = None  # the taker refers to this object: leave no cycle
