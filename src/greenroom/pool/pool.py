"""Public interface of the pool."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Unpack

from ..app import App
from ..app_facts import AppFacts
from ..errors import GreenroomError, PoolClosed, RejectionReason, WallMissing, fresh
from ..exit_report import ExitReport
from ..job import Job
from ..options import PoolKeywords, PoolOptions, checked_seconds
from ..system import kernel_features, prctl, wakeup
from ..wire import payload
from .core import vocabulary as v
from .core.effective_options import EffectiveOptions
from .core.records import Process
from .event_bus import EventBus
from .events import Event
from .flight_recorder.download import pieces_of_recorder
from .handles import JobHandle, Reservation
from .recent_reports import KeptReports
from .resident_client import ResidentClient
from .shell.child_client import ChildClient
from .shell.outer_domain import OuterDomain
from .shell.pool_assembly import assemble
from .shell.script_client import Invocation
from .shell.shell import Shell

__all__ = ["PoolStats", "ProcessInfo", "ProcessPool"]


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """Picture of one process of the pool."""

    id: str
    """Id of the process, unique in the pool."""
    pid: int | None
    """Process id of the operating system; ``None`` before the fork."""
    state: str
    """Public state, such as ``idle`` or ``running``."""
    generation: int
    """Number of the generation of code."""
    job_id: str | None
    """Id of the job that the process has, if any."""
    launch_type: Literal["warm", "cold"] | None
    """``warm`` if an idle process was there at once, else ``cold``; ``None`` without a job."""
    beat_age: float | None = None
    """Time since the last beat of the event loop, which beats every second; ``None`` without a job."""
    loop_lag: float | None = None
    """Time by which the last beat came late; ``None`` without a job."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Figures of the pool at one moment."""

    ready: bool
    """True if a job could start now in a warm process."""
    not_ready_reason: RejectionReason | None
    """Reason why the pool is not ready; ``None`` if it is ready."""
    idle: int
    """Number of idle processes."""
    warming: int
    """Number of processes between the request and idle."""
    jobs: int
    """Number of jobs and reservations, with those that wait."""
    waiting: int
    """Number of jobs and reservations that wait for a process."""
    expected_wait: float | None
    """Expected wait of a new job for a process: 0 with an idle process, ``None`` without a zygote."""
    idle_target: int
    """Number of idle processes that the pool holds at the moment."""
    generation: int | None
    """Number of the generation that forks now; ``None`` without a zygote."""
    zygote_pid: int | None
    """Process id of the zygote; ``None`` without a zygote."""
    zygote_restarts: int
    """Number of zygotes that were lost and replaced."""
    breaker_open: bool
    """True if jobs are rejected because processes do not become warm."""
    breaker_cause: str | None
    """Latest failure of a process to become warm."""
    session_mb: float | None
    """Private memory of a job by the samples so far; ``None`` before the first sample."""
    expected_growth_mb: float
    """Memory that the running jobs will still take, by that cost."""


class ProcessPool:
    """Pool of warm processes for the jobs of an app. Each process serves one job and is supervised to its end.

    ``app`` is an :class:`App` that can be imported, ``"module:attr"`` or ``"path.py:attr"``. The options are those of
    :class:`~greenroom.PoolOptions`. Use the pool as an async context manager, or call :meth:`start` and
    :meth:`aclose`. The pool runs on the event loop on which it was started.

    An app without an attribute may be a LiveKit script with a main block. The pool then runs the main block once, in
    a separate process. ``invocation`` holds its arguments.

    ``flight_recorder_dir`` is a folder in memory, such as ``/dev/shm``. After a crash of this process, the flight
    recording of the pool is still there. See :meth:`recording`.

    ``walls_supervisor``: no other process of the same user can look into this process from :meth:`start` on, not even
    a debugger (``PR_SET_DUMPABLE`` in prctl(2)). The pool of a worker does this, unless ``walls`` is ``off``.

    The pool makes this process a *child subreaper* (prctl(2)): orphans below this process become its children. So a
    job survives the loss of its zygote, and no process of the pool is lost.
    """

    def __init__(
        self,
        app: App | str,
        *,
        invocation: Invocation | None = None,
        flight_recorder_dir: str | None = None,
        walls_supervisor: bool = False,
        **options: Unpack[PoolKeywords],
    ) -> None:
        self._app = app if isinstance(app, str) else app.import_string()
        self._effective = EffectiveOptions(PoolOptions.from_keywords(options), frozenset(options))
        self._invocation = invocation or Invocation()
        self._recordings = None if flight_recorder_dir is None else Path(flight_recorder_dir)
        self._walls_supervisor = walls_supervisor
        self.domain = OuterDomain(self._effective.options.walls)
        """For integrations: the outer domain of the pool's processes, in which a socket for them must be made."""
        self._state: Literal["new", "open", "closed"] = "new"
        self._closing: asyncio.Task[None] | None = None
        self._reports = KeptReports()
        self._events = EventBus()
        self.resident = ResidentClient(lambda: self._shell if self._state == "open" else None)
        """For sources: the resident process, which answers questions and gets news."""
        self.trace_parent_of: Callable[[str], str | None] = lambda job_id: None
        """For integrations: function that returns the W3C ``traceparent`` for a job, by its id. Set it before
        :meth:`start`."""
        self._shell: Shell

    async def __aenter__(self) -> ProcessPool:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- life cycle ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the app and warm the first processes.

        Returns when the idle target is reached, or when a process has failed to become warm. After such a failure the
        pool goes on trying, and :meth:`stats` has the cause. Raises :class:`AppLoadError`, or :class:`PoolClosed` if
        the pool is closed meanwhile. After an error no process is left.
        """
        if self._state != "new":
            raise GreenroomError(f"start() was called on a pool that is {self._state}; make a new one")
        if sys.platform != "linux":
            raise GreenroomError("Greenroom runs on Linux only: it needs pidfds, lifelines and a subreaper")
        await _check_walls(self.options)
        prctl.set_child_subreaper()
        wakeup.harden_loop(asyncio.get_running_loop())
        self.domain.enter()
        parts = (self._invocation, self._events, self._reports.add, self._recordings, self.domain)
        shell = self._shell = assemble(self._app, self._effective, *parts)
        if self._walls_supervisor:
            shell.tools.walls.close_supervisor()
        shell.trace_parent_of = self.trace_parent_of
        self._state = "open"
        try:
            shell.report(v.Open())
            error = await asyncio.shield(shell.callers.opened)
            if error is not None:
                raise fresh(error)
            if shell.core.idle_target() > 0:
                await shell.settled.wait()
        except BaseException:
            await self.aclose()
            raise

    async def drain(self, timeout: float) -> None:
        """Reject new jobs, and wait for the end of all accepted jobs. After ``timeout`` seconds, end the others.

        Raises :class:`PoolClosed` if the pool is not open. Close the empty pool with :meth:`aclose`.
        """
        shell, timeout = self._open_shell(), checked_seconds("timeout", timeout)
        shell.report(v.Drain(timeout))
        await shell.empty.wait()

    async def aclose(self, *, kill: bool = False) -> None:
        """End all jobs and processes, and wait until they are gone. May be called at any time, and again.

        Jobs are asked to end, and have ``shutdown_timeout`` and ``cleanup_timeout``. With ``kill``, all are killed at
        once, also if an earlier call still waits. A process that SIGKILL does not end is reported. The pool then
        waits for it no longer.
        """
        if self._state == "new":
            self._state = "closed"
            self.domain.close()
        if self._state == "open":
            self._state = "closed"
            self._closing = asyncio.create_task(self._close(), name="greenroom-close")
        if kill and self._closing is not None and not self._closing.done():
            self._shell.report(v.Close(kill=True))
            self._shell.launchers.kill_script()
        if self._closing is not None:
            # Half a clean-up would leave processes behind. So the clean-up goes on even if the caller is cancelled.
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._shell.close()
        self._events.flush()

    # --- jobs ------------------------------------------------------------------------------------

    async def launch(
        self,
        job_or_metadata: Any = None,
        *,
        timeout: float | None = None,
        source: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> JobHandle:
        """Launch a job, wait for the acknowledgement by its process, and return the job's handle.

        ``job_or_metadata`` is a :class:`Job`, or metadata: plain data (JSON or bytes). ``timeout`` is in seconds, by
        default ``launch_timeout``. ``source`` and ``labels`` name the origin of the job in log lines, events and its
        report. At most eight labels are kept, with 256 characters each.

        Raises :class:`NoCapacity` if the job is rejected or no process is there in time. Raises :class:`LaunchError`
        if the job could not be started, :class:`PayloadError` and :class:`PoolClosed`. After an error the job does
        not run, and will not run.
        """
        handle = self.submit(job_or_metadata, timeout=timeout, source=source, labels=labels)
        try:
            await handle.started()
        except asyncio.CancelledError:
            handle.cancel("launch() was cancelled")
            raise
        return handle

    def submit(
        self,
        job_or_metadata: Any = None,
        *,
        timeout: float | None = None,
        source: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> JobHandle:
        """Launch a job and return its handle at once. See :meth:`JobHandle.started`. Raises as :meth:`launch` does."""
        shell = self._open_shell()
        timeout = self.options.launch_timeout if timeout is None else checked_seconds("timeout", timeout)
        job_id, metadata = _id_and_metadata(job_or_metadata)
        ticket = shell.callers.ticket(job_id)
        shell.request(v.Launch(ticket.number, job_id, metadata, timeout, source, dict(labels or {})), ticket)
        return JobHandle(ticket, shell)

    async def reserve(
        self,
        job_or_metadata: Any = None,
        *,
        timeout: float = 0.0,
        source: str = "",
        labels: Mapping[str, str] | None = None,
        takes_promise: bool = False,
    ) -> Reservation:
        """Reserve a warm process for an offered job, which may be launched later.

        Without an idle process, wait for the next one, for up to ``timeout`` seconds. If earlier processes took longer
        than that, reject the job at once. The reservation ends after ``reservation_timeout`` seconds. Raises
        :class:`NoCapacity`, :class:`PayloadError` and :class:`PoolClosed`.

        With ``takes_promise``, do not wait if a process is certain to be idle within ``timeout``: forks succeed, and
        the queue is short enough. The reservation then has a place in the queue. Once it is launched, its job has
        ``launch_timeout`` to start.
        """
        shell = self._open_shell()
        timeout = checked_seconds("timeout", timeout) if timeout else 0.0
        job_id, metadata = _id_and_metadata(job_or_metadata)
        ticket = shell.callers.ticket(job_id)
        shell.request(
            v.Reserve(ticket.number, job_id, metadata, timeout, source, dict(labels or {}), takes_promise), ticket
        )
        reservation = Reservation(ticket, shell)
        try:
            error = await asyncio.shield(ticket.granted)
        except asyncio.CancelledError:
            reservation.release("reserve() was cancelled")
            raise
        error = error or ticket.given_up  # for example, the pool was closed before this task ran again
        if error is not None:
            raise fresh(error)
        return reservation

    # --- control ---------------------------------------------------------------------------------

    def resize(self, n: int, *, max_idle_processes: int | None = None) -> None:
        """Set ``num_idle_processes`` to ``n``, and set ``max_idle_processes``.

        ``None`` keeps ``max_idle_processes``, or raises it to ``n``. Raises :class:`PoolClosed`, or
        :class:`OptionError`. After an error nothing has changed.
        """
        shell, effective = self._open_shell(), self._shell.core.pool.effective
        effective.resized(n, max_idle_processes)  # raises before anything has changed
        shell.report(v.Resize(n, max_idle_processes))

    async def reload(self) -> None:
        """Load the app's code again, and run new jobs on it. Running jobs end on the code of their start.

        Raises :class:`AppLoadError` or :class:`PrewarmError` if the new code does not load or become warm. New jobs
        then still run on the old code. Raises :class:`PoolClosed` if the pool drains or is closed.
        """
        shell = self._open_shell()
        number, future = shell.callers.reload()
        shell.report(v.Reload(number))
        try:
            error = await asyncio.shield(future)
        except asyncio.CancelledError:
            shell.callers.reloads.pop(number, None)
            shell.report(v.GiveUpReload(number))
            raise
        if error is not None:
            raise fresh(error)

    # --- inspection ------------------------------------------------------------------------------

    def subscribe(self, fn: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``fn`` with each :class:`~greenroom.pool.events.Event` from now on. Return a function that ends this.

        ``fn`` runs on the event loop, and gets the events in their order. May be called before :meth:`start`.
        """
        return self._events.subscribe(fn)

    @property
    def walls(self) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """Names of the walls around sessions that stand, and the cause for each wall that does not.

        Both are empty with ``walls`` off, and before the first zygote runs. Raises :class:`PoolClosed`.
        """
        known = self._open_shell().tools.walls
        return known.standing, dict(known.missing)

    def publish(self, event: Event) -> None:
        """For sources: pass an event of the source to the subscribers, such as a rejection."""
        self._events.publish(event)

    @property
    def options(self) -> PoolOptions:
        """Options that hold now: those of the constructor and of the app, with the sizes of :meth:`resize`."""
        return self._shell.core.pool.options if self._state == "open" else self._effective.options

    @property
    def is_open(self) -> bool:
        """True if the pool was started and is not closed."""
        return self._state == "open"

    def leave_to_app(self, names: Iterable[str]) -> None:
        """For integrations: let the app change these options, although they were set. Call it before :meth:`start`."""
        self._effective = self._effective.left_to_app(names)

    @property
    def app_facts(self) -> AppFacts | None:
        """For sources and integrations: facts about the app that is served, such as its manifest.

        ``None`` before they are known: with ``spawn``, the first warm process reports them. Raises
        :class:`PoolClosed`.
        """
        return self._open_shell().core.pool.facts

    @property
    def manifest(self) -> dict[str, Any]:
        """For sources: :attr:`App.manifest` of the app. Raises :class:`PoolClosed`."""
        facts = self.app_facts
        return {} if facts is None else facts.manifest

    @property
    def has_request(self) -> bool:
        """True if the app has a ``request`` function: see :meth:`Reservation.ask`. Raises :class:`PoolClosed`."""
        facts = self.app_facts
        return facts is not None and facts.has_request

    def has_job(self, job_id: str) -> bool:
        """Return true if a job or a reservation has this id."""
        return self._state == "open" and job_id in self._shell.core.pool.job_queue.by_id

    @property
    def processes(self) -> tuple[ProcessInfo, ...]:
        """All processes of the pool, oldest first. Raises :class:`PoolClosed`."""
        shell = self._open_shell()
        return tuple(_info(process, shell.children.get(process.id)) for process in shell.core.pool.processes.values())

    @property
    def recent_reports(self) -> Iterable[ExitReport]:
        """Latest 1,000 exit reports, oldest first, also of processes without a job.

        Results are dropped to bound memory. Texts such as stacks are kept up to 16 Mi characters in all. Above that,
        the oldest texts are cut, with a mark.
        """
        return tuple(self._reports)

    def stats(self) -> PoolStats:
        """Return the figures of this moment. Raises :class:`PoolClosed`."""
        return PoolStats(**self._open_shell().core.stats())

    async def recording(self) -> AsyncGenerator[bytes, None]:
        """Yield the flight recording in pieces: the latest events of the pool, with its decisions.

        Write the pieces into a file. ``greenroom debug record --from FILE`` makes a text of that file, and
        ``greenroom debug replay`` explains the decisions. Raises :class:`GreenroomError` if nothing is recorded, and
        ``OSError`` if no file descriptor is free.
        """
        shell = self._open_shell()
        if shell.recorder is None or not shell.recorder.is_on:
            raise GreenroomError(
                "nothing is recorded: flight_recorder_mb is 0, or the recorder has failed. See the log"
            )
        async for piece in pieces_of_recorder(shell.recorder, shell.tools.walks.executor):
            yield piece

    def had_signal(self) -> None:
        """Notify all processes that this process got a signal to end. They then ignore their own copies of it.

        Call it in a handler of SIGTERM, if a service manager signals all processes of a program. Only
        ``start_method="spawn"`` needs it.
        """
        if self._state == "new":
            return
        now = time.monotonic()
        for child in self._shell.children.values():
            child.channels.note_signal(now)

    def owns(self, pid: int) -> bool:
        """Return true if the pool waits for this child. Other code must not wait for it.

        Raises ``OSError`` if no file descriptor is free.
        """
        if self._state == "new":
            return False
        return pid in self._shell.own_pids() or self._shell.tools.orphans.may_own(pid)

    def _open_shell(self) -> Shell:
        if self._state != "open":
            hint = "it has not been started" if self._state == "new" else "it was closed"
            raise PoolClosed(f"the pool is not open: {hint}")
        return self._shell


async def _check_walls(options: PoolOptions) -> None:
    """Raise :class:`WallMissing` without a required wall, where no zygote does it: a spawned process is too late."""
    if options.start_method == "spawn" and options.walls == "require":
        missing = await asyncio.to_thread(kernel_features.walls)
        if missing:
            raise WallMissing.of(missing)


def _id_and_metadata(job_or_metadata: Any) -> tuple[str, bytes]:
    """Return a job's id, and its metadata as a payload."""
    if isinstance(job_or_metadata, Job):
        return job_or_metadata.id, job_or_metadata.payload
    return f"job-{secrets.token_hex(6)}", payload.encode(job_or_metadata)


def _info(process: Process, child: ChildClient | None) -> ProcessInfo:
    job = process.job
    pulse = None if child is None or job is None else child.pulse()
    return ProcessInfo(
        process.id,
        process.pid,
        process.state.public,
        process.generation.number,
        job.id if job is not None else None,
        job.launch_type if job is not None else None,
        None if pulse is None else max(time.monotonic() - pulse.at, 0.0),
        None if pulse is None else pulse.late,
    )
