"""The pool, as its user sees it."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from ..app import App
from ..app_setting import AppSettings, unpacked
from ..errors import GreenroomError, PoolClosed, fresh
from ..job import Job
from ..log_fields import log_fields
from ..options import PoolOptions, checked_seconds
from ..report import ExitReport
from ..system import prctl, wakeup
from ..system.cgroup import MemoryCgroups
from ..texts import cut_end
from ..wire import payload
from .budgets import Allowance
from .clock import AwakeClock
from .contracts import Services
from .events import Draining, Event, EventBus
from .exits import Decision
from .fleet import Fleet
from .generations import Generations
from .kept_reports import KeptReports
from .launch import JobHandle
from .oom import OomCounter
from .process import Process
from .program import Invocation, Program
from .reservation import Reservation
from .strays import StrayKiller
from .terms import Terms
from .transit import TransitMemory

__all__ = ["PoolStats", "ProcessInfo", "ProcessPool"]

_logger = logging.getLogger("greenroom")

_LONGEST_DETAIL = 1000
"""Characters of a detail in the log, where it may quote an exception; the report has all of it."""
_REAP_INTERVAL = 1.0
"""Seconds between two looks for dead orphans."""

_REAP_INTERVAL = 1.0  # seconds
_REAP_PAUSE = 0.005  # seconds, in which the event loop does other work


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process of the pool at one moment."""

    id: str
    pid: int | None
    state: str
    generation: int
    job_id: str | None
    launch_type: Literal["warm", "cold"] | None


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The pool at one moment."""

    ready: bool
    """Whether a session could start now, in a warm process."""
    not_ready_reason: str | None
    idle: int
    warming: int
    jobs: int
    """Accepted and not ended, those that wait included."""
    waiting: int
    """For a process; among them sessions that are only offered."""
    expected_wait: float | None
    """Seconds that a session which came now would wait for a process: 0 if one is idle, ``None`` without a zygote."""
    idle_target: int
    generation: int | None
    """The generation that forks now; ``None`` while there is no zygote."""
    zygote_pid: int | None
    zygote_restarts: int
    breaker_open: bool
    breaker_cause: str | None
    session_mb: float | None
    """What a session costs in memory of its own (MiB), by those that were looked at; ``None`` if none was yet."""
    expected_growth_mb: float
    """What the sessions that run will still take, by that cost."""


class ProcessPool:
    """Warm, one-shot, supervised processes for the jobs of an app.

    ``app`` is an :class:`App` that can be imported, ``"module:attr"`` or ``"path.py:attr"``; the
    options are those of :class:`~greenroom.PoolOptions`. Use it as an async context manager, or call
    :meth:`start` and :meth:`aclose`. Everything happens on the event loop it is started on.

    An app that is named without an attribute is run as a script, once and in a process of its own, if it has a main
    block that starts a worker of LiveKit's; ``invocation`` says how.

    It makes this process a *child subreaper* (prctl(2)): orphans below it become its children instead
    of init's, so that a job survives the loss of its zygote, and nothing that it started is ever lost.
    """

    def __init__(self, app: App | str, *, invocation: Invocation | None = None, **options: Any) -> None:
        self._app = app if isinstance(app, str) else app.import_string()
        self._terms = Terms(PoolOptions.from_keywords(options), frozenset(options))
        self._invocation = invocation or Invocation()
        self._state: Literal["new", "open", "closed"] = "new"
        self._closing: asyncio.Task[None] | None = None
        self._settled: asyncio.Event
        self._reports = KeptReports()
        self._events = EventBus()
        self._fleet: Fleet
        self._generations: Generations
        self._program: Program
        self._strays: StrayKiller

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

        Returns when the idle target is reached, or when a process has failed to become warm: then
        the pool goes on trying, and :meth:`stats` tells why it is not ready. Raises
        :class:`AppLoadError`, or :class:`PoolClosed` if the pool is closed meanwhile; then nothing is left running.
        """
        if self._state != "new":
            raise GreenroomError(f"start() was called on a pool that is {self._state}; make a new one")
        if sys.platform != "linux":
            raise GreenroomError("Greenroom runs on Linux; it is supervised with pidfds, lifelines and a subreaper")
        prctl.set_child_subreaper()
        wakeup.harden_loop(asyncio.get_running_loop())
        self._settled = asyncio.Event()
        self._build()
        self._state = "open"
        try:
            await self._generations.start()
            await self._settle()
        except BaseException:
            await self.aclose()
            raise

    def _build(self) -> None:
        token = secrets.token_hex(8)
        clock = AwakeClock()
        strays = self._strays = StrayKiller(token, self._own_pids, self._running_pids)
        log_budget = Allowance.of_pool()
        cgroups = functools.cache(lambda: MemoryCgroups.where_delegated(token))
        transit = TransitMemory(clock)
        services = Services(
            self._terms, self._terms.options, clock, OomCounter(), strays, log_budget, transit, self._events, cgroups
        )
        self._fleet = Fleet(services, self._on_idle, self._on_report, self._settled.set)
        self._program = Program(self._app, token, services, self._invocation)
        self._generations = Generations(self._app, token, self._fleet, self._program)
        clock.start()
        self._reap_dead()

    def _reap_dead(self) -> None:
        """Reap what sessions without a zygote have left behind that is dead, now and in each second."""
        is_done = True
        with suppress(OSError):  # no fd to look with: the next time, perhaps
            is_done = self._strays.reap_dead()
        self._fleet.clock.call_later(_REAP_INTERVAL if is_done else _REAP_PAUSE, self._reap_dead)

    async def _settle(self) -> None:
        if self._fleet.idle_target() > 0:
            await self._settled.wait()

    async def drain(self, timeout: float) -> None:
        """Take no more jobs, and wait for those accepted; after ``timeout`` seconds end what still runs.

        Raises :class:`PoolClosed` on a pool that is not open. The pool is left empty, to be closed with
        :meth:`aclose`.
        """
        fleet, timeout = self._open_fleet(), checked_seconds("timeout", timeout)
        fleet.is_draining = True
        self._events.publish(Draining(timeout))
        self._generations.give_up_reload()
        fleet.shed_unwanted(Decision("drained", "the pool is draining"))
        overdue = fleet.clock.call_later(timeout, self._drain_overdue, timeout)
        try:
            await fleet.empty.wait()
        finally:
            overdue.cancel()

    def _drain_overdue(self, timeout: float) -> None:
        count = len(self._fleet.jobs)
        _logger.warning("%d jobs are still there after %g s of draining; they are ended", count, timeout)
        self._end_all(Decision("drained", f"the pool was drained, and the job did not end within {timeout:g} s"))

    async def aclose(self, *, kill: bool = False) -> None:
        """End every job and process, and wait until they are gone. Safe to call again, and at any time.

        Jobs are asked to end, and have their time for that; with ``kill``, also in a call after another
        one, nobody is waited for.
        """
        if self._state == "new":
            self._state = "closed"
        if self._state == "open":
            self._state = "closed"
            self._closing = asyncio.create_task(self._close(), name="greenroom-close")
        if kill and self._closing is not None and not self._closing.done():
            for process in list(self._fleet.processes.values()):
                process.kill(Decision("drained", "the pool was closed at once"), dump=None)
            self._program.kill()
        if self._closing is not None:
            # Half a clean-up would leave processes behind: it goes on even if the caller is cancelled.
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._fleet.is_closing = True
        self._end_all(Decision("drained", "the pool was closed"))
        await self._fleet.empty.wait()
        await self._generations.close()
        await self._strays.end()
        self._fleet.clock.stop()
        self._settled.set()
        self._events.flush()

    def _end_all(self, decision: Decision) -> None:
        jobs = self._fleet.jobs
        # First those that wait: what the others give back must not go to them.
        for launch in [*jobs.waiting, *jobs.live.values()]:
            jobs.cancel(launch, decision)
        for process in list(self._fleet.processes.values()):
            process.stop(decision)

    # --- jobs ------------------------------------------------------------------------------------

    async def launch(
        self,
        job_or_metadata: Any = None,
        *,
        timeout: float | None = None,
        source: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> JobHandle:
        """Start a job; returns when its process has acknowledged it.

        ``job_or_metadata`` is a :class:`Job`, or metadata: plain data (what JSON can hold, or bytes).
        ``timeout`` is in seconds, by default ``launch_timeout``. Raises :class:`NoCapacity` if the job
        is turned down or no process was there in time, :class:`LaunchError` if it could not be
        started, :class:`PayloadError` and :class:`PoolClosed`; then the job does not run, and will not.
        ``source`` says where the session comes from, and ``labels`` what it is called there, for those who watch the
        pool: they stand in its log lines, events and report. At most eight, of 256 characters each.
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
        """Accept a job, without waiting for its start: see :meth:`JobHandle.started`. Raises as :meth:`launch`."""
        fleet = self._open_fleet()
        timeout = fleet.options.launch_timeout if timeout is None else checked_seconds("timeout", timeout)
        launch = fleet.jobs.accept(*_order(job_or_metadata), timeout, source, labels)
        return JobHandle(launch, fleet.jobs.cancel)

    async def reserve(
        self,
        job_or_metadata: Any = None,
        *,
        timeout: float = 0.0,
        source: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> Reservation:
        """Keep a warm process for a job that is offered, and whose order to start is still to come.

        If none is idle, one that is on its way is waited for, for ``timeout`` seconds at most; not at all, if
        by what processes have taken so far it cannot be there in time. The process is kept for
        ``reservation_timeout`` seconds. Raises :class:`NoCapacity`, :class:`PayloadError` and
        :class:`PoolClosed`.
        """
        fleet = self._open_fleet()
        timeout = checked_seconds("timeout", timeout) if timeout else 0.0
        launch = fleet.jobs.reserve(*_order(job_or_metadata), timeout, source, labels)
        reservation = Reservation(launch, fleet, fleet.jobs.cancel)
        try:
            error = await asyncio.shield(launch.reserved)
        except asyncio.CancelledError:
            reservation.release("reserve() was cancelled")
            raise
        error = error or launch.given_up  # in the moment between the two: the pool is being closed, say
        if error is not None:
            raise fresh(error)
        return reservation

    # --- steering --------------------------------------------------------------------------------

    def resize(self, n: int, *, max_idle_processes: int | None = None) -> None:
        """Hold ``n`` idle processes from now on, and at the most ``max_idle_processes``.

        ``None`` keeps that as it is, raised to ``n`` if need be. Raises :class:`PoolClosed`, or
        :class:`OptionError`; then nothing changes.
        """
        self._open_fleet().resize(n, max_idle_processes)

    async def reload(self) -> None:
        """Serve from newly loaded code; jobs that run end on the code they started with.

        Raises :class:`AppLoadError` or :class:`PrewarmError` if the new code does not load or become
        warm: then the old code goes on serving as if nothing had been. Raises :class:`PoolClosed` if the pool
        drains, or begins to: then nothing is reloaded any more.
        """
        self._open_fleet()
        await self._generations.reload()

    # --- looking ---------------------------------------------------------------------------------

    def subscribe(self, fn: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``fn`` with each :class:`~greenroom.pool.events.Event` from now on; returns what ends that.

        It is called on the event loop, in the order in which things happened. May be called before :meth:`start`.
        """
        return self._events.subscribe(fn)

    def publish(self, event: Event) -> None:
        """Tell the subscribers of something that was decided around the pool, such as a session turned down."""
        self._events.publish(event)

    @property
    def options(self) -> PoolOptions:
        """What it was made with, what the app sets beside, and what it was resized to since."""
        return self._fleet.options if self._state == "open" else self._terms.options

    @property
    def manifest(self) -> dict[str, Any]:
        """What the app has told of itself: see :class:`App`. Raises :class:`PoolClosed`."""
        return self._open_fleet().facts.manifest

    @property
    def is_open(self) -> bool:
        """Whether it was started, and is not closed."""
        return self._state == "open"

    def leave_to_app(self, names: Iterable[str]) -> None:
        """Take these options for defaults, which the app may change, although they were given. Before :meth:`start`."""
        self._terms = self._terms.left_to_app(names)

    @property
    def has_heard_app(self) -> bool:
        """Whether the app has told of itself: one that is spawned does when its first process is warm."""
        return self._open_fleet().has_heard_app

    @property
    def app_settings(self) -> AppSettings:
        """What the app sets of Greenroom's settings, those beside the pool's too. Raises :class:`PoolClosed`."""
        return unpacked(self._open_fleet().facts.settings)

    @property
    def has_request(self) -> bool:
        """Whether the app has a ``request`` function: see :meth:`Reservation.ask`. Raises :class:`PoolClosed`."""
        return self._open_fleet().facts.has_request

    def has_job(self, job_id: str) -> bool:
        """Whether a job of this id lives, or a process is kept, or looked for, for one."""
        return self._state == "open" and job_id in self._fleet.jobs.live

    @property
    def processes(self) -> tuple[ProcessInfo, ...]:
        """Every process there is, oldest first. Raises :class:`PoolClosed`."""
        return tuple(map(_info, self._open_fleet().processes.values()))

    @property
    def recent_reports(self) -> Iterable[ExitReport]:
        """The latest thousand exit reports, oldest first: also of processes that never had a job.

        They are without results. If their texts (errors, tracebacks, stacks) have more than 16 Mi characters in all,
        those of the oldest are cut, and say so.
        """
        return tuple(self._reports)

    def stats(self) -> PoolStats:
        """Figures of this moment, and whether a session could start in it. Raises :class:`PoolClosed`."""
        fleet, launcher = self._open_fleet(), self._fleet.launcher
        cost = fleet.sampler.cost
        problem = fleet.jobs.capacity_problem() or (None if fleet.idle else "warming")
        return PoolStats(
            ready=problem is None,
            not_ready_reason=problem,
            idle=len(fleet.idle),
            warming=len(fleet.warming),
            jobs=len(fleet.jobs),
            waiting=len(fleet.jobs.waiting),
            expected_wait=fleet.expected_wait(),
            idle_target=fleet.idle_target(),
            generation=launcher.generation if launcher else None,
            zygote_pid=next(iter(launcher.pids), None) if launcher else None,
            zygote_restarts=self._generations.zygote_restarts,
            breaker_open=fleet.breaker.is_open or fleet.trouble is not None,
            breaker_cause=fleet.trouble or fleet.breaker.cause,
            session_mb=cost.session_mb,
            expected_growth_mb=cost.expected_growth_mb(len(fleet.jobs) - cost.sampled),
        )

    def had_signal(self) -> None:
        """Tell the processes that this one was signalled to end. If they were, too, it was not meant for them.

        For a program that handles SIGTERM itself, and is stopped together with all its processes. Those of a zygote
        learn it from that as well.
        """
        if self._state == "new":
            return
        now = time.monotonic()
        for process in self._fleet.processes.values():
            process.tell_of_signal(now)

    def owns(self, pid: int) -> bool:
        """Whether a child of this process is the pool's, to be waited for by nobody else.

        Raises ``OSError`` when there are no fds left to look with.
        """
        if self._state == "new":
            return False
        return pid in self._own_pids() or self._strays.may_own(pid)

    # --- what the fleet tells --------------------------------------------------------------------

    def _on_idle(self, process: Process) -> None:
        self._generations.process_became_idle(process)
        if len(self._fleet.idle) >= self._fleet.idle_target():
            self._settled.set()

    def _on_report(self, process: Process, report: ExitReport) -> None:
        self._reports.add(report)
        level = logging.INFO if report.outcome in ("succeeded", "cancelled") else logging.WARNING
        text, fields = "%s %s: %s (%s)", _fields_of(report)
        detail = cut_end(report.detail, _LONGEST_DETAIL)
        if report.log_records_dropped:
            detail += f"; {report.log_records_dropped} lines of its log were dropped or cut"
        _logger.log(level, text, process.label, report.outcome, report.reason, detail, extra=fields)
        self._generations.process_ended(process, report)

    def _own_pids(self) -> set[int]:
        return self._fleet.live_pids() | self._generations.pids

    def _running_pids(self) -> set[int]:
        return self._fleet.running_pids() | self._generations.pids

    def _open_fleet(self) -> Fleet:
        if self._state != "open":
            hint = "it has not been started" if self._state == "new" else "it was closed"
            raise PoolClosed(f"the pool is not open: {hint}")
        return self._fleet


def _order(job_or_metadata: Any) -> tuple[str, bytes]:
    """A job's id and its metadata as a payload."""
    if isinstance(job_or_metadata, Job):
        return job_or_metadata.id, job_or_metadata.payload
    return f"job-{secrets.token_hex(6)}", payload.encode(job_or_metadata)


def _fields_of(report: ExitReport) -> dict[str, Any]:
    """What the log line of a process's end carries."""
    times = report.timings
    has_run = times.started is not None and times.ended is not None
    return log_fields(
        "process_ended",
        process_id=report.process_id,
        job_pid=report.pid,
        job_id=report.job_id,
        labels=report.labels or None,
        generation=report.generation,
        outcome=report.outcome,
        reason=report.reason,
        exit_code=report.exit_code,
        signal=report.signal,
        run_seconds=round((times.ended or 0.0) - (times.started or 0.0), 3) if has_run else None,
        peak_memory_mb=report.peak_memory_mb,
        cpu_seconds=report.cpu_seconds,
        log_records_dropped=report.log_records_dropped or None,
    )


def _info(process: Process) -> ProcessInfo:
    launch = process.launch
    return ProcessInfo(
        process.id,
        process.pid,
        process.state.public,
        process.generation,
        launch.job_id if launch else None,
        launch.launch_type if launch else None,
    )
