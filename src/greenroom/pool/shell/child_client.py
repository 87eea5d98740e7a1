"""Client of one child, in the supervisor: channels, pidfd, watches, stacks and exit status.

This code runs in the supervisor. :mod:`greenroom.zygote.child` runs in the process itself.

The lifeline is a pipe that never carries data: see :mod:`greenroom.system.lifeline`. The supervisor alone has its write
end. When the supervisor closes this end, or dies, the kernel kills the process.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...signal_names import CRASHES
from ...system import crash_stacks, proc
from ...system.heartbeat import Beats, Pulse
from ...wire import messages as m
from ..core import vocabulary as v
from ..core.exit_verdict import ExitStatus
from ..core.records import Process
from ..core.stalls import DumpTime
from . import output
from .child_channels import ChildChannels
from .crash_lines import CrashLines
from .dumps import stacks_of
from .os_process import OsProcess
from .tools import Report, Tools
from .watches import Watches

__all__ = ["MOST_DROPS_PER_SECOND", "ChildClient"]

MOST_DROPS_PER_SECOND = 1_000_000
"""More log records than a Python process can make in a second.

A child reports its own number of dropped records in its heartbeat page. A faulty child can write any number there, so
the supervisor cuts the number to this rate.
"""


class ChildClient:
    """Process of the pool, from the request for its fork until it is forgotten.

    ``record`` is the core's record of the process, from which log lines take names and labels. The constructor opens
    the channels, and raises ``OSError`` if no fds are left.

    The order of the calls in a normal life is:

    - the ends of :attr:`channels` are sent, then :meth:`forked`. Without a process: :meth:`not_forked`, :meth:`forget`.
    - :meth:`look`, :meth:`start`, and :meth:`send` for further messages.
    - :meth:`exited`, when the zygote has reported the exit status. The pidfd may call :meth:`found_dead` before.
    - :meth:`reaped`, when the zygote has reported that no descendant is left. Without a zygote: :meth:`read_status`.
    - :meth:`forget`.
    """

    def __init__(self, record: Process, tools: Tools, report: Report) -> None:
        self.id = record.id
        self.record = record
        self.is_adopted = False
        """True if the supervisor is the parent of the process."""
        self._tools = tools
        self._report = report
        self._requested_at = time.monotonic()
        self.channels = ChildChannels(tools.transit, self._on_message, self._on_nonsense, self._on_wait)
        self._os_process: OsProcess | None = None
        self.inherited_mb = 0.0
        self._dump_fd: int | None = None
        self.watches = Watches(self, tools, report)
        self._last_words: list[v.Happening] | None = None
        """Messages that are read after the death of the process. ``None`` except during that read."""
        self.is_dead = False
        """True after the death of the process is known."""
        self._status: ExitStatus | None = None
        self._is_killed = False
        """True after :meth:`kill`."""
        self.is_idle = False
        """True from :class:`~greenroom.wire.messages.Warm` until the next message to the process.

        Any message may give the process work, and the memory of a process with work is read more often.
        """
        self._is_forgotten = False
        self._crash_lines = CrashLines()
        self._reading_stacks = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Pid of the process, or ``None`` before the process exists."""
        return None if self._os_process is None else self._os_process.pid

    @property
    def live_pid(self) -> int:
        """Pid of a process that exists."""
        assert self._os_process is not None
        return self._os_process.pid

    def beats(self) -> Beats:
        """Read the heartbeat page of the process."""
        return self.channels.beats()

    # --- the fork --------------------------------------------------------------------------------

    def forked(self, pid: int, pidfd: int, inherited_mb: float) -> None:
        """Take over the process, which exists now, and its pidfd. This object closes the pidfd in the end."""
        self.inherited_mb = inherited_mb
        self._os_process = OsProcess(pid, pidfd, self._tools.clock, self.found_dead)
        self.channels.open(self._emit, self._tools.log_budget)
        self._report(v.Forked(self.id, pid))

    def not_forked(self, cause: str) -> None:
        """Report to the core that the pool gets no process from this request."""
        self._report(v.ForkFailed(self.id, cause))

    def disown(self, cause: str) -> None:
        """Give up a process that exists but cannot be supervised. Cutting the lifeline makes the kernel kill it."""
        self.channels.cut_lifeline()
        self.not_forked(cause)

    # --- messages to the process, and signals ----------------------------------------------------

    def look(self) -> v.Unfit | None:
        """Return why the process cannot take a job now; ``None`` if it can. The kernel is asked, not the process."""
        if self._os_process is not None and self._os_process.is_alive():
            return None
        is_stopped = False
        with suppress(OSError):  # gone by now
            is_stopped = proc.stat(self.live_pid).state in ("T", "t")
        return v.Unfit(self.id, is_stopped)

    def start(self, job_id: str, metadata: bytes, trace_parent: str | None) -> None:
        """Send the process its job."""
        self.is_idle = False
        self.channels.send(m.Start(job_id, trace_parent), metadata)
        self.watches.hurry()

    def send(self, message: m.Message, body: bytes = b"") -> None:
        """Send the process a message."""
        self.is_idle = False
        self.channels.send(message, body)

    def dump(self, dump_time: DumpTime) -> None:
        """Request the stacks of the process, and report them."""
        if self._os_process is None or self._dump_fd is None:
            self._report(v.Dumped(self.id, ""))
        else:
            self._os_process.dump(self._dump_fd, dump_time, lambda stacks: self._report(v.Dumped(self.id, stacks)))

    def pulse(self) -> Pulse | None:
        """Return the last beat of the process's event loop; ``None`` before the first, and after its death."""
        return None if self.is_dead else self.channels.heartbeat.pulse()

    async def stacks(self) -> str:
        """Return the stacks of the process, which goes on; an empty text if there are none, or if it is being killed.

        One call reads at a time: the others wait, since all read one file.
        """
        async with self._reading_stacks:
            if not self._is_alive() or self._dump_fd is None or self.record.dump_was_asked:
                return ""
            try:
                return await stacks_of(self.live_pid, self._dump_fd, self.channels.heartbeat, self._is_alive)
            except OSError:  # the process is gone, or runs as another user
                return ""

    def _is_alive(self) -> bool:
        return not self.is_dead and self._os_process is not None and self._os_process.is_alive()

    def kill(self, *, with_descendants: bool = False) -> None:
        """Send SIGKILL to the process.

        ``with_descendants``: kill the cgroup and the process group first. If the process died first, its descendants
        could start more processes meanwhile.
        """
        self._is_killed = True
        if self._os_process is not None and with_descendants:
            self.watches.kill_cgroup()
            self._os_process.kill_group()
        if self._os_process is not None:
            self._os_process.kill()

    # --- messages from the process ---------------------------------------------------------------

    def _on_message(self, message: m.Message, body: bytes) -> None:
        if isinstance(message, m.Hello):
            if self._dump_fd is None and self.is_adopted:  # the first message of a spawned process
                self._tools.walls.note(message.missing_walls)
            self._dump_fd = message.dump_fd
        elif isinstance(message, m.Warm):
            self.is_idle = True
        self._pass_on(_HAPPENINGS[type(message)](self.id, message, body))

    def _on_nonsense(self, complaint: str) -> None:
        self._pass_on(v.Nonsense(self.id, complaint))

    def _on_wait(self, waits: bool) -> None:
        if not self.is_dead:
            self._report(v.Waits(self.id, waits))

    def _pass_on(self, happening: v.Happening) -> None:
        if self._last_words is not None:
            self._last_words.append(happening)
        else:
            self._report(happening)

    # --- the end of the process ------------------------------------------------------------------

    def found_dead(self) -> None:
        """Report the death of the process, with its last messages.

        The pidfd and the zygote may both report the death here. Only the first report counts.
        """
        if self.is_dead:
            return
        assert self._os_process is not None
        self.is_dead = True
        self._os_process.has_died()
        self.watches.stop()
        words = self._last_words = []
        self.channels.finish()
        self._last_words = None
        self._report(v.Died(self.id, tuple(words)))

    def exited(self, status: ExitStatus) -> bool:
        """Take over the exit status that the zygote has read. Return false if the kernel says that the process lives.

        The zygote reads the status of a zombie, and the pidfd of a zombie is readable.
        """
        if self._is_forgotten:  # a debugger held the status for longer than the pool waited
            self.is_dead = True
            return True
        assert self._os_process is not None
        if not self.is_dead and not self._os_process.is_dead():
            return False
        self._status = status
        self.found_dead()
        return True

    def reaped(self, usage: m.Reaped) -> None:
        """Report the end of the process: its zygote has reaped the process and all descendants of the process."""
        if not self._is_forgotten:
            self._reap(usage.cpu_seconds, usage.peak_memory_mb, usage.descendants_killed)

    def read_status(self) -> None:
        """Reap the process, and report its end.

        The supervisor is the parent: it has spawned the process, or the process was re-parented to the supervisor when
        the zygote died.
        """
        assert self._os_process is not None
        try:
            reaped = self._os_process.reap()
        except ChildProcessError:  # just before the zygote died, it reaped this process
            self._status = self._status or ExitStatus(None, None)
            self._reap(None, None, 0)
            return
        if reaped is None:
            return  # a debugger holds the exit status, and the core has a deadline for this
        self._status = reaped.status
        seconds, peak = reaped.cpu_seconds, reaped.peak_memory_mb
        self._tools.orphans.sweep(lambda killed: self._reap(seconds, peak, killed))

    def _reap(self, cpu_seconds: float | None, peak_memory_mb: float | None, descendants: int) -> None:
        status = self._status or ExitStatus(None, None)
        is_killed_by_other = status == ExitStatus(None, signal.SIGKILL) and not self._is_killed
        self._report(
            v.Reaped(
                process=self.id,
                status=status,
                cpu_seconds=cpu_seconds,
                peak_memory_mb=peak_memory_mb,
                descendants_killed=descendants,
                limit_was_hit=self.watches.limit_was_hit(),
                oom_killed=is_killed_by_other and self._tools.oom.has_struck(self.live_pid),
                dropped=self._claimed_drops() + self.channels.dropped,
                crash_stacks=self._crash_stacks() if status.signal in CRASHES else None,
            )
        )

    def _crash_stacks(self) -> str | None:
        """Return the stacks that the process wrote as it crashed; ``None`` if it wrote none."""
        return crash_stacks.stacks_in(self.channels.heartbeat.crash_text()) or self._crash_lines.text()

    def examine(self) -> None:
        """Report whether a debugger holds the exit status."""
        is_traced = False
        with suppress(OSError):  # gone
            is_traced = proc.tracer_of(self.live_pid) != 0
        self._report(v.Examined(self.id, is_traced))

    def _claimed_drops(self) -> int:
        """Return the number of log records that the child claims to have dropped, cut to a possible number."""
        seconds = time.monotonic() - self._requested_at
        return min(self.beats().dropped, int(seconds * MOST_DROPS_PER_SECOND))

    def forget(self, *, is_alive: bool) -> None:
        """Close all fds that were opened for the process. A process that lives on is reaped when it dies."""
        self._is_forgotten = True
        self.watches.forget()
        del self.watches  # the watches refer to this object: leave no cycle
        self.channels.close()
        if self._os_process is not None:
            if is_alive:
                self._os_process.reap_when_dead()
            else:
                self._os_process.close()

    def _emit(self, line: output.OutputLine | output.Loss) -> None:
        if isinstance(line, output.OutputLine) and line.stream == "stderr":
            self._crash_lines.take(line.text)
        output.emit(line, self.record.ids)


_HAPPENINGS: dict[type, Callable[[str, Any, bytes], v.Happening]] = {
    m.Hello: lambda id_, message, body: v.Hello(id_, message.app),
    m.Warm: lambda id_, message, body: v.Warm(id_, message.prewarm_seconds),
    m.PrewarmFailed: lambda id_, message, body: v.PrewarmFailed(id_, message.error),
    m.Answer: lambda id_, message, body: v.Answered(
        id_, message.number, message.accepted, message.reason, message.final, body
    ),
    m.Started: lambda id_, message, body: v.Started(id_, message.job_id),
    m.Ending: lambda id_, message, body: v.Ending(id_),
    m.Ended: lambda id_, message, body: v.Ended(id_, message.how, message.told, message.error, body),
    m.CleaningUp: lambda id_, message, body: v.CleaningUp(id_, message.overrun, message.cut, message.stacks),
}
