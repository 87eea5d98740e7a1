"""All processes and all accepted jobs of a pool, and how they find each other.

Nothing here waits: every method runs within one turn of the event loop, so a process that is claimed
is claimed by one job, and no job's life delays another's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from ..errors import GreenroomError, LaunchError, NoCapacity
from ..options import PoolOptions
from ..report import ExitReport, Timings
from .breaker import Breaker
from .clock import Timer, wall_time
from .contracts import Launcher, Services
from .exits import Decision
from .idle import IdleQueue
from .launch import Launch
from .process import Process
from .sizing import Demand, forks_needed
from .stalls import Stall
from .states import State

__all__ = ["Fleet"]

_logger = logging.getLogger("greenroom")

MAX_ATTEMPTS = 3
"""How many processes a job is tried on, one after the other, if none acknowledges it."""
SETTLED = 1.0
"""Seconds idle after which a process counts as a success: one that dies sooner was not really warm."""
HOUSEKEEPING = 0.5
REFILL_DELAY = 0.002
_WARMING = (State.REQUESTED, State.FORKED, State.WARMING)


class Fleet:
    """Implements :class:`~greenroom.pool.contracts.ProcessOwner`."""

    def __init__(
        self,
        services: Services,
        on_idle: Callable[[Process], object],
        on_report: Callable[[Process, ExitReport], object],
        on_warm_failure: Callable[[], object],
    ) -> None:
        self.services = services
        self.clock = services.clock
        self.launcher: Launcher | None = None
        self.processes: dict[str, Process] = {}
        self.launches: dict[str, Launch] = {}
        self.waiting: deque[Launch] = deque()
        self.idle = IdleQueue()
        self.warming: set[Process] = set()
        self.breaker = Breaker()
        self.demand = Demand()
        self.is_draining = False
        self.is_closing = False
        self.trouble: str | None = None
        """Why there is nothing to fork from, if that lasts."""
        self.empty = asyncio.Event()
        self.empty.set()
        self._on_idle = on_idle
        self._on_report = on_report
        self._on_warm_failure = on_warm_failure
        self._count = 0
        self._last_failure = float("-inf")
        self._retry: Timer | None = None
        self._refill: asyncio.TimerHandle | None = None
        self._housekeeping = self.clock.call_later(HOUSEKEEPING, self._keep_house)

    @property
    def options(self) -> PoolOptions:
        return self.services.options

    # --- jobs ------------------------------------------------------------------------------------

    def accept(self, job_id: str, metadata: bytes, timeout: float) -> Launch:
        """Take a job on: with an idle process if there is one, else in the queue. Or turn it down."""
        self._admit(job_id)
        process = self._take_idle()
        launch = Launch(job_id, metadata, self.clock.now() + timeout)
        if process is not None:
            launch.launch_type = "warm"
            self._assign(process, launch)  # before all bookkeeping: the session starts while that is done
        launch.expiry = self.clock.call_later(timeout, self._expire, launch)
        self.launches[job_id] = launch
        self.empty.clear()
        self.demand.claimed(self.clock.now())
        if process is not None:
            self._balance_soon()
        else:
            self.waiting.append(launch)
            self.balance()
        return launch

    def cancel(self, launch: Launch, decision: Decision) -> None:
        """End a job wherever it is. One that has not started will not."""
        launch.cancelled = launch.cancelled or decision
        if launch.process is not None:
            launch.process.stop(decision)
        elif launch in self.waiting:
            self.waiting.remove(launch)
            self._end_unstarted(launch, decision, _never_started(launch, decision.detail))

    def capacity_problem(self) -> str | None:
        """Why a job would be turned down now; ``None`` if it would not."""
        if self.is_draining or self.is_closing:
            return "draining"
        if len(self.launches) >= self.options.max_jobs:
            return "full"
        if not self.idle and (self.breaker.is_open or self.trouble is not None):
            return "breaker_open"
        return None

    def _admit(self, job_id: str) -> None:
        options, problem = self.options, self.capacity_problem()
        if problem == "draining":
            raise NoCapacity("the pool is draining and takes no more jobs", reason="draining", retry_after=5.0)
        if problem == "full":
            retry_after = min(max(self.demand.session_seconds / options.max_jobs, 1.0), 30.0)
            raise NoCapacity(f"all {options.max_jobs} jobs are taken", reason="full", retry_after=retry_after)
        if problem == "breaker_open":
            raise self._breaker_open()
        if job_id in self.launches:
            raise LaunchError(f"job id {job_id!r} is in use by a job that has not ended")

    def _breaker_open(self) -> NoCapacity:
        retry_after = max(self.breaker.wait(self.clock.now()), 1.0)
        failures = f"no process becomes warm ({self.breaker.failures} failures in a row): {self.breaker.cause}"
        message = self.trouble or failures
        return NoCapacity(message, reason="breaker_open", retry_after=retry_after)

    def _take_idle(self) -> Process | None:
        """The next idle process that is alive at this moment; those of the present generation first."""
        found, unfit = None, []
        for process in self.idle.in_order(self.launcher.generation if self.launcher else None):
            if process.is_alive():
                found = process
                break
            unfit.append(process)
        for process in unfit:
            process.found_unfit()
        return found

    def _assign(self, process: Process, launch: Launch) -> None:
        remaining = launch.expires_at - self.clock.now()
        launch.process = process
        launch.attempts += 1
        launch.claimed_at = time.monotonic()
        process.claim(launch, min(self.options.start_timeout, max(remaining, 0.05)))

    def _serve_waiting(self) -> None:
        """First come, first served."""
        while self.waiting and (process := self._take_idle()) is not None:
            self._assign(process, self.waiting.popleft())

    def _put_back(self, launch: Launch) -> None:
        """Into its old place: those that came before it may have lost their processes, too."""
        before = sum(1 for other in self.waiting if other.requested_at < launch.requested_at)
        self.waiting.insert(before, launch)

    def _expire(self, launch: Launch) -> None:
        if launch not in self.waiting:
            return  # with a process, which has a deadline of its own, no later than this
        self.waiting.remove(launch)
        retry_after = max(self.demand.refill_seconds, 1.0)
        message = f"no process became warm in time for job {launch.job_id}"
        error = NoCapacity(message, reason="warming", retry_after=retry_after)
        self._end_unstarted(launch, Decision("start_timeout", message), error)

    def _end_unstarted(self, launch: Launch, decision: Decision, error: GreenroomError) -> None:
        """End a job that no process has, or will have."""
        report = ExitReport(
            outcome="cancelled" if decision.reason in ("cancelled", "drained") else "failed",
            reason=decision.reason,
            detail=decision.detail,
            timings=Timings(requested=wall_time(launch.requested_at), ended=wall_time(time.monotonic())),
            job_id=launch.job_id,
            launch_type=launch.launch_type,
        )
        del self.launches[launch.job_id]
        launch.end(report, error)
        self._note_if_empty()

    # --- processes -------------------------------------------------------------------------------

    def balance(self) -> None:
        """Request the forks that are missing, as far as bounds and breaker allow."""
        if self.launcher is None or self.is_closing:
            return
        now, generation = self.clock.now(), self.launcher.generation
        warming = sum(process.generation == generation for process in self.warming)
        bound = self.breaker.tries_allowed(now, len(self.warming), self.options.max_concurrent_prewarms)
        missing = forks_needed(
            idle_target=self.idle_target(),
            idle=self.idle.count(generation),
            waiting=len(self.waiting),
            warming=warming,
            outgoing=len(self.warming) - warming,
            concurrent=bound,
        )
        for _ in range(missing):
            if self.launcher is None or not self.fork_from(self.launcher):
                break
        if self.breaker.wait(now) > 0 and self._retry is None:
            self._retry = self.clock.call_later(self.breaker.wait(now), self._try_again)

    def _balance_soon(self) -> None:
        """Replace a claimed process in a moment: for that moment the CPUs belong to the start of the session."""
        if self._refill is None:
            self._refill = asyncio.get_running_loop().call_later(REFILL_DELAY, self._balance_now)

    def _balance_now(self) -> None:
        self._refill = None
        self.balance()

    def idle_target(self) -> int:
        if self.is_draining:
            return 0
        options = self.options
        return self.demand.idle_target(self.clock.now(), options.num_idle_processes, options.idle_ceiling)

    def shed_idle(self, decision: Decision) -> None:
        """Have the idle processes exit that nobody waits for."""
        if not self.waiting:
            for process in list(self.idle):
                process.stop(decision)  # and leaves the queue of the idle, as it changes its state

    def processes_of(self, launcher: Launcher) -> list[Process]:
        return [process for process in self.processes.values() if process.launcher is launcher]

    def fork_from(self, launcher: Launcher) -> bool:
        """Request one process; false if there is nothing to make it with."""
        self._count += 1
        try:
            process = Process(f"{launcher.generation}-{self._count}", launcher, self.services, self)
        except OSError as error:
            self._failed(f"no resources for another process: {error}")
            return False
        self.processes[process.id] = process
        self.warming.add(process)
        self.empty.clear()
        launcher.fork(process)
        return True

    def _try_again(self) -> None:
        self._retry = None
        self.balance()

    def _note_if_empty(self) -> None:
        if not self.processes and not self.launches:
            self.empty.set()

    def _failed(self, cause: str) -> None:
        """A process did not become, or did not stay, warm."""
        self._count_failure(cause)
        self._explain_failure(cause)

    def _count_failure(self, cause: str) -> None:
        was_open = self.breaker.is_open
        self._last_failure = self.clock.now()
        self.breaker.failed(self._last_failure, cause)
        if self.breaker.is_open and not was_open:
            _logger.error("sessions are turned down until a process becomes warm again: %s", cause)

    def _explain_failure(self, cause: str) -> None:
        """Tell what is known now that the process is gone."""
        self.breaker.explained(cause)
        _logger.warning("a process did not become warm (%d in a row): %s", self.breaker.failures, cause)
        self._on_warm_failure()

    def use_launcher(self, launcher: Launcher) -> None:
        """Fork from this one from now on; what is idle of it may serve."""
        self.launcher, self.trouble = launcher, None
        self._serve_waiting()
        self.balance()

    def lose_launcher(self) -> None:
        """What was forked from is gone; another one is under way."""
        self.launcher = None
        self._on_warm_failure()

    def has_no_launcher(self, cause: str) -> None:
        """There is nothing to fork from, and that lasts."""
        self.trouble = f"there is no zygote to fork from: {cause}"
        self._on_warm_failure()

    def _keep_house(self) -> None:
        """Let surplus idle processes go when their time has come; note successes; count OOM kills."""
        self._housekeeping = self.clock.call_later(HOUSEKEEPING, self._keep_house)
        now = self.clock.now()
        self.services.oom.look()
        for process in [process for process in self.idle if process.is_adopted and not process.is_alive()]:
            process.found_unfit()  # there is no zygote to tell that it was stopped
        settled = (process for process in self.idle if now - process.idle_since >= SETTLED)
        if self.breaker.failures and any(process.idle_since > self._last_failure for process in settled):
            self.breaker.succeeded()
        surplus = len(self.idle) - self.idle_target()
        ttl = self.options.idle_ttl
        for process in self.idle.oldest(surplus):
            if now - process.idle_since >= ttl:
                process.stop(Decision("idle_expired", f"it was idle for idle_ttl ({ttl:g} s), and not needed"))
        self.balance()

    def resize(self, num_idle: int, max_idle: int | None) -> None:
        if max_idle is None and self.options.max_idle_processes is not None:
            max_idle = max(self.options.max_idle_processes, num_idle)
        self.services.options = replace(self.options, num_idle_processes=num_idle, max_idle_processes=max_idle)
        for process in self.idle.oldest(len(self.idle) - self.idle_target()):
            process.stop(Decision("idle_expired", "the pool was made smaller"))
        self.balance()

    def live_pids(self) -> set[int]:
        return {process.pid for process in self.processes.values() if process.pid is not None}

    # --- what processes tell ---------------------------------------------------------------------

    def changed(self, process: Process, before: State) -> None:
        if before is State.IDLE:
            self.idle.discard(process)
        if process.state not in _WARMING:
            self.warming.discard(process)
            # Counted at once: it may take long to exit, and its place is free already.
            if before in _WARMING and process.state is not State.IDLE and self._was_wanted(process):
                self._count_failure(process.fate)

    def became_idle(self, process: Process) -> None:
        self.demand.refilled(process.refill_seconds)
        self.idle.add(process)
        self._on_idle(process)
        self._serve_waiting()
        if self.is_draining:
            self.shed_idle(Decision("drained", "the pool is draining"))
        self.balance()

    def started(self, process: Process) -> None:
        self.breaker.succeeded()
        if process.launch is not None:
            process.launch.has_started()

    def stalled(self, process: Process, stall: Stall) -> None:
        if stall is Stall.STARVED:
            _logger.warning("%s is starved of CPU; it is left alone", process.label)
        else:
            _logger.warning("%s stalled: %s", process.label, stall.value)

    def died(self, process: Process) -> None:
        """If it had a job but never acknowledged it, the job goes to another process: this one is dead."""
        launch = process.launch
        if launch is None or process.acknowledged:
            return
        if process.is_recalled:
            launch.will_not_start(_never_started(launch, process.fate))
        elif launch.cancelled is not None:
            launch.process = None
            self._end_unstarted(launch, launch.cancelled, _never_started(launch, launch.cancelled.detail))
        elif launch.attempts < MAX_ATTEMPTS and self.clock.now() < launch.expires_at and not self.is_closing:
            launch.process = None
            self._put_back(launch)
            self._serve_waiting()
            self.balance()
        elif process.is_doomed:
            launch.will_not_start(_not_started(launch, process.fate))  # now; its report takes a moment more

    def ended(self, process: Process, report: ExitReport) -> None:
        del self.processes[process.id]
        launch = process.launch
        if launch is not None and launch.process is process:
            del self.launches[launch.job_id]
            if process.acknowledged:
                self.demand.session_ended((report.timings.ended or 0.0) - (report.timings.started or 0.0))
                launch.end(report)
            else:
                launch.end(report, _not_started(launch, report.detail))
        self._account_for(process, report)
        self._on_report(process, report)
        self.balance()
        self._note_if_empty()

    def _account_for(self, process: Process, report: ExitReport) -> None:
        """Tell failures to become, or to stay, warm from ends that were wanted."""
        if not self._was_wanted(process) or process.launch is not None or report.reason == "idle_expired":
            return
        if not process.idle_since:
            self._explain_failure(report.detail)
        elif report.signal != 9 and self.clock.now() - process.idle_since < SETTLED:
            self._failed(f"it died as soon as it was idle: {report.detail}")

    def _was_wanted(self, process: Process) -> bool:
        """Whether its end says something about the app; what becomes of old code says nothing about the new."""
        is_old = self.launcher is not None and process.generation != self.launcher.generation
        return not (process.is_recalled or process.was_abandoned or is_old)

    def fork_overdue(self, process: Process) -> None:
        _logger.error("the zygote did not fork %s in time; it is replaced", process.label)
        process.launcher.kill()

    def reap_overdue(self, process: Process) -> None:
        """Its parent should have told its status by now: replace that, and the status is read here."""
        _logger.error("the status of %s is overdue", process.label)
        if process.is_adopted:
            process.give_up()
        else:
            process.launcher.kill()


def _not_started(launch: Launch, cause: str) -> LaunchError:
    return LaunchError(f"job {launch.job_id} did not start: {cause}")


def _never_started(launch: Launch, cause: str) -> LaunchError:
    return LaunchError(f"job {launch.job_id} never started: {cause}")
