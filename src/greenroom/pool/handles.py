"""Handles of a job: one after its launch, and one during its reservation."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

from ..errors import GreenroomError, LaunchError, fresh
from ..exit_report import ExitReport
from ..job import Accept, Job, Reject
from ..job_labels import Labels
from ..options import checked_seconds
from ..system.heartbeat import Pulse
from ..wire import payload
from .core import vocabulary as v
from .core.records import Job as JobRecord
from .core.states import PublicJobState as JobState
from .shell.callers import Ticket
from .shell.shell import Shell

__all__ = ["JobHandle", "JobState", "Reservation"]


class JobHandle:
    """Handle of a launched job."""

    def __init__(self, ticket: Ticket, shell: Shell) -> None:
        self._ticket = ticket
        self._shell = shell

    def __repr__(self) -> str:
        return f"<JobHandle {self.id} {self.state}>"

    @property
    def id(self) -> str:
        """Id of the job, given or generated."""
        return self._ticket.job_id

    @property
    def labels(self) -> Labels:
        """Names that the source has for the job, such as the room of a LiveKit call."""
        return self._record.labels

    @property
    def pid(self) -> int | None:
        """Process id of the job's process; ``None`` while the job waits for one."""
        process = self._record.process
        return process.pid if process is not None else self._record.pid

    @property
    def state(self) -> JobState:
        """State of the job: ``waiting``, ``starting``, ``running``, ``draining``, ``ending`` or ``ended``."""
        return self._record.state.public

    @property
    def launch_type(self) -> Literal["warm", "cold"]:
        """Type of the launch: ``warm`` if an idle process was there at once, else ``cold``."""
        return self._record.launch_type

    @property
    def start_seconds(self) -> float | None:
        """Seconds from the launch to the acknowledgement by the process; ``None`` before that."""
        record = self._record
        return None if record.started_wall is None else record.started_wall - record.requested_wall

    @property
    def report(self) -> ExitReport | None:
        """Report of the job's end; ``None`` before that."""
        return self._ticket.report.result() if self._ticket.report.done() else None

    @property
    def beat_age(self) -> float | None:
        """Time since the last beat of the job's event loop, which beats every second; ``None`` if it does not run."""
        pulse = self._pulse()
        return None if pulse is None else max(time.monotonic() - pulse.at, 0.0)

    @property
    def loop_lag(self) -> float | None:
        """Time by which the last beat of the job's event loop came late; ``None`` if it does not run."""
        pulse = self._pulse()
        return None if pulse is None else pulse.late

    async def stacks(self) -> str:
        """Return the Python stacks of the job's process, which goes on as before.

        Raises :class:`GreenroomError` if the job has no process now, or if its process writes no stacks.
        """
        process = self._record.process
        child = None if process is None else self._shell.children.get(process.id)
        stacks = "" if child is None else await child.stacks()
        if not stacks:
            raise GreenroomError(f"job {self.id} has no stacks: it has no process, or its process is ending")
        return stacks

    async def started(self) -> None:
        """Wait for the start of the job. Raises :class:`NoCapacity` or :class:`LaunchError` if it does not start."""
        error = await asyncio.shield(self._ticket.started)
        if error is not None:
            raise fresh(error)

    async def wait(self) -> ExitReport:
        """Wait for the end of the job and return its report. An error of the job is in the report, and never raised."""
        return await asyncio.shield(self._ticket.report)

    def cancel(self, reason: str = "", *, unless_ending: bool = False) -> None:
        """Cancel the job. A waiting job never starts, and a running job is asked to end.

        A second call, or a call after the end, does nothing. With ``unless_ending``, a job that has begun to end by
        itself is left alone, such as a LiveKit agent whose room is closed.
        """
        self._shell.report(v.Cancel(self._ticket.number, reason or "it was cancelled", unless_ending))

    def _pulse(self) -> Pulse | None:
        process = self._record.process
        child = None if process is None else self._shell.children.get(process.id)
        return None if child is None else child.pulse()

    @property
    def _record(self) -> JobRecord:
        assert self._ticket.job is not None
        return self._ticket.job


class Reservation:
    """Reservation of a process for a job, between the job's offer and its launch.

    A reservation ends by :meth:`launch`, by :meth:`release`, or after ``reservation_timeout``. If the process dies
    meanwhile, another process is reserved.
    """

    def __init__(self, ticket: Ticket, shell: Shell) -> None:
        self._ticket = ticket
        self._shell = shell

    def __repr__(self) -> str:
        return f"<Reservation {self.id} {self.state}>"

    @property
    def id(self) -> str:
        """Id of the job."""
        return self._ticket.job_id

    @property
    def pid(self) -> int | None:
        """Process id of the reserved process; ``None`` while a lost process is replaced, and after the end."""
        process = self._record.process
        return process.pid if process is not None else None

    @property
    def state(self) -> JobState:
        """State: ``reserved``, or ``waiting`` while a lost process is replaced. After the launch: the job's state."""
        return self._record.state.public

    async def ask(self) -> Accept | Reject:
        """Ask the app's ``request`` function and return its answer. Without such a function, return ``Accept``.

        The function has ``request_timeout`` seconds. If it raises, the answer is a :class:`Reject` with the cause. A
        :class:`Reject` releases the process.
        """
        facts = self._shell.core.pool.facts
        if facts is None or not facts.has_request:
            return Accept()
        self._ask(v.AskApp(self._ticket.number, self.id))
        try:
            answer = await asyncio.shield(self._ticket.answer)
            if isinstance(answer, GreenroomError):
                raise fresh(answer)
            if answer.accepted and self._ticket.given_up is not None:
                raise fresh(self._ticket.given_up)  # the reservation ended before this task ran again
            if answer.accepted:
                return Accept(payload.decode(answer.body) if answer.body else None)
            return Reject(answer.reason, final=answer.final)
        except BaseException:
            self.release("the caller has gone")
            raise

    def launch(self, metadata: Any = None, *, timeout: float | None = None) -> JobHandle:
        """Launch the job in the reserved process, and return its handle. See :meth:`JobHandle.started`.

        ``metadata``, plain data or a :class:`Job`, replaces the metadata of the offer, unless it is ``None``.
        ``timeout`` is in seconds, by default ``launch_timeout``. Raises :class:`LaunchError` if the reservation has
        ended.
        """
        options = self._shell.core.pool.options
        timeout = options.launch_timeout if timeout is None else checked_seconds("timeout", timeout)
        encoded = metadata.payload if isinstance(metadata, Job) else payload.encode(metadata)
        number, body = self._ticket.number, None if metadata is None else encoded
        self._ask(v.LaunchReserved(number, self.id, body, timeout))
        return JobHandle(self._ticket, self._shell)

    def release(self, reason: str = "") -> None:
        """Release the process, so that it is idle again. After :meth:`launch`, or a second time, this does nothing."""
        self._shell.report(v.Release(self._ticket.number, reason or "released"))

    def _ask(self, request: v.AskApp | v.LaunchReserved) -> None:
        """Make a request about the reservation. Raises the error of a rejection."""
        ticket = self._ticket
        ticket.refusal = None
        self._shell.report(request)
        if ticket.given_up is not None and isinstance(request, v.LaunchReserved):
            text = f"job {self.id} cannot be started: its process is not reserved any more ({ticket.given_up})"
            raise LaunchError(text)
        if ticket.refusal is not None:
            raise fresh(ticket.refusal)

    @property
    def _record(self) -> JobRecord:
        assert self._ticket.job is not None
        return self._ticket.job
