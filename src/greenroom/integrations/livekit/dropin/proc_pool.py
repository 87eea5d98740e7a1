"""Greenroom's pool with the interface of LiveKit's ``ProcPool``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from livekit.agents import utils
from livekit.agents.job import RunningJobInfo
from livekit.agents.telemetry import metrics

from ....errors import GreenroomError
from ....exit_report import ExitReport
from ....job import Job
from ....pool import JobHandle, ProcessPool, events
from ..agent import running_job
from ..job_order import labels_of
from . import app
from .executor import Executor
from .inference import InferenceRelay
from .own_loggers import OwnLoggers
from .pool_options import OWN_OPTIONS, child_settings, pool_options
from .thread import LoopThread

__all__ = ["OWN_OPTIONS", "DropInPool"]

EventTypes = Literal["process_created", "process_started", "process_ready", "process_closed", "process_job_launched"]

_ATTEMPTS = 3
"""Number of processes whose initialization LiveKit awaits, one after the other, before it gives a job up."""


class DropInPool(utils.EventEmitter[EventTypes]):
    """Replacement of LiveKit's pool. ``arguments`` are the keywords with which this release makes its own pool."""

    def __init__(self, options: Mapping[str, Any], **arguments: Any) -> None:
        super().__init__()
        self._arguments = arguments
        self._options = pool_options(arguments, options)
        self._target_idle = self._default_idle = int(arguments["num_idle_processes"])
        self._relay = InferenceRelay(arguments.get("inference_executor"))
        self._executors: list[Executor] = []
        self._by_process: dict[str, Executor] = {}
        self._by_job: dict[str, Executor] = {}
        self._pool: ProcessPool | None = None
        self._closing: asyncio.Task[None] | None = None
        self._thread: LoopThread
        self._unsubscribe: Callable[[], None]
        self._log = OwnLoggers(self.get_by_job_id)

    # --- calls of the worker ---------------------------------------------------------------------

    async def start(self) -> None:
        """Warm the first processes. Raises :class:`AppLoadError` if the worker's functions cannot be loaded."""
        if self._pool is not None:
            return
        # The worker names the modules to preload after it has made its pool, and before it starts the pool.
        settings = child_settings(self._arguments, self._relay.address)
        self._pool = pool = ProcessPool(app.reference(settings), **self._options)
        self._unsubscribe = pool.subscribe(self._passed_on_to(asyncio.get_running_loop()))
        self._thread = LoopThread()
        self._log.install()
        try:
            await self._relay.open(pool.domain.stream_socket())
            await self._thread.run(pool.start())
        except BaseException:
            await self._close_pool(kill=True)
            raise

    def _passed_on_to(self, loop: asyncio.AbstractEventLoop) -> Callable[[events.Event], object]:
        """Return a subscriber that passes the pool's events to the worker's loop, in the same order."""

        def pass_on(event: events.Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._on_event, event)

        return pass_on

    async def aclose(self) -> None:
        """End all jobs as LiveKit does, and then all processes. Safe to call again, and at any time."""
        await self._close_pool(kill=False)

    async def _close_pool(self, *, kill: bool) -> None:
        if self._pool is not None and self._closing is None:
            self._closing = asyncio.create_task(self._end(self._pool, kill=kill), name="greenroom-livekit-close")
        if self._closing is not None:
            # Half a clean-up would leave processes behind. So the clean-up goes on if the caller is cancelled.
            await asyncio.shield(self._closing)

    async def _end(self, pool: ProcessPool, *, kill: bool) -> None:
        try:
            if not kill:
                await asyncio.gather(*(executor.aclose() for executor in self.processes))  # with LiveKit's reason
            await self._thread.run(pool.aclose(kill=kill))
            await self._end_around()
        finally:
            self._closing = None

    async def _end_around(self) -> None:
        """Close the loop, the relay and the log filter around a closed pool."""
        self._pool = None
        self._unsubscribe()
        self._log.remove()
        await self._thread.stop()
        await self._relay.close()

    async def launch_job(self, info: RunningJobInfo) -> None:
        """Launch a job, and return when a process has acknowledged it.

        Raises :class:`NoCapacity` or :class:`LaunchError`. Then the worker also reports the failure to the server,
        since it has accepted the job already.
        """
        if self._pool is None:
            raise RuntimeError("the pool has not been started")
        info.launched_at = time.time()
        executor = Executor(info)
        is_known = info.job.id in self._by_job  # then the server's job with this id is the earlier one
        if not is_known:
            self._by_job[info.job.id] = executor  # before the first event about the job
            self._executors.append(executor)
        # If the caller is cancelled, this goes on: Executor.aclose() waits to learn whether the pool has the job.
        handle = await asyncio.shield(self._take(self._pool, info, executor, is_known))
        await self._thread.run(handle.started())

    async def _take(self, pool: ProcessPool, info: RunningJobInfo, executor: Executor, is_known: bool) -> JobHandle:
        try:
            handle = await self._thread.run(self._submit(pool, info))
        except GreenroomError:
            self._refuse(executor, is_known)
            raise
        metrics.job_started()
        executor.accepted(
            lambda reason: self._thread.call(partial(handle.cancel, reason, unless_ending=True)),
            lambda cause: self._thread.call(_give_up, handle, executor, cause),
        )
        return handle

    async def _submit(self, pool: ProcessPool, info: RunningJobInfo) -> JobHandle:
        """Submit a job. Runs on the pool's loop."""
        job = Job(info.job.id, running_job.to_plain(info))
        timeout = _ATTEMPTS * self._options["prewarm_timeout"]
        return pool.submit(job, timeout=timeout, source="livekit", labels=labels_of(info.job))

    def _refuse(self, executor: Executor, is_known: bool) -> None:
        if not is_known:
            executor.refused()
            del self._by_job[executor.job_id]
            self._executors.remove(executor)
            self.emit("process_closed", executor)

    def get_by_job_id(self, job_id: str) -> Executor | None:
        return self._by_job.get(job_id)

    @property
    def processes(self) -> list[Executor]:
        return list(self._executors)

    @property
    def target_idle_processes(self) -> int:
        return self._target_idle

    def set_target_idle_processes(self, num_idle_processes: int) -> None:
        """Set the number of idle processes. The worker calls this twice a second, with the room that its load leaves.

        As in LiveKit's pool, a smaller number ends no warm process: the pool only starts no new one in its place. The
        load goes up and down, and each time warm processes would be lost.
        """
        self._target_idle = num_idle_processes
        if self._pool is not None:
            self._thread.call(self._resize, self._pool, num_idle_processes)

    def _resize(self, pool: ProcessPool, num_idle_processes: int) -> None:
        """Set the pool's number of idle processes. Runs on the pool's loop."""
        if not pool.is_open:
            return
        target = min(max(num_idle_processes, 0), self._default_idle)
        target = max(target, min(pool.stats().idle, self._default_idle))
        if target != pool.options.num_idle_processes:
            pool.resize(target)

    # --- the pool's events -----------------------------------------------------------------------

    def _on_event(self, event: events.Event) -> None:
        match event:
            case events.ProcessChanged(before=""):
                self._created(event.process_id)
            case events.ProcessChanged(after="warming", pid=pid):
                executor = self._by_process[event.process_id]
                executor.pid = pid
                self.emit("process_started", executor)
            case events.ProcessWarmed():
                metrics.proc_initialized(time_elapsed=event.prewarm_seconds)
                self.emit("process_ready", self._by_process[event.process_id])
            case events.BreakerChanged(is_open=True, cause=cause):
                for executor in list(self._by_job.values()):
                    executor.give_up(f"processes do not become warm: {cause}")
            case events.JobStarted():
                self._started(event)
            case events.JobEnded():
                metrics.job_ended()
                self._close(self._by_job.pop(event.report.job_id or ""), event.report)
            case events.ProcessEnded(report=report):
                self._process_ended(report)

    def _created(self, process_id: str) -> None:
        self._by_process[process_id] = executor = Executor()
        self._executors.append(executor)
        self.emit("process_created", executor)

    def _started(self, event: events.JobStarted) -> None:
        executor = self._by_job[event.job_id]
        self._executors.remove(self._by_process.pop(event.process_id))  # the job's executor takes its place
        executor.pid = event.pid
        self.emit("process_job_launched", executor)

    def _process_ended(self, report: ExitReport) -> None:
        executor = self._by_process.pop(report.process_id or "", None)
        if executor is not None:  # a process that had a job is closed by the job's end
            self._close(executor, report)

    def _close(self, executor: Executor, report: ExitReport) -> None:
        executor.ended(report)
        self.emit("process_closed", executor)  # first: the worker looks the executor up in its list
        self._executors.remove(executor)
        executor.is_over()  # last: a drain loops while an ended executor is in the list


def _give_up(handle: JobHandle, executor: Executor, cause: str) -> None:
    """Cancel a job that still waits. Runs on the pool's loop: on the worker's, a job that runs may seem to wait."""
    if handle.state == "waiting":
        executor.given_up()
        handle.cancel(cause)
