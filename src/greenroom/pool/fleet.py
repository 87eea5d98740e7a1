"""All processes of a pool: how many there are to be, which of them are idle, and what becomes of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from ..app_setting import unpacked
from ..log_fields import log_fields
from ..options import PoolOptions
from ..report import ExitReport
from ..wire.messages import Answer, AppFacts
from .breaker import Breaker
from .clock import Timer
from .contracts import Launcher, Services
from .crowd import Crowd
from .events import (
    BreakerChanged,
    PrewarmsBounded,
    ProcessChanged,
    ProcessEnded,
    ProcessWarmed,
    Resized,
    Stalled,
)
from .exits import Decision
from .idle import IdleQueue
from .jobs import Jobs
from .process import Process
from .sampler import MemorySampler
from .sizing import Demand, expected_wait, forks_needed
from .stalls import Stall
from .states import State

__all__ = ["Fleet"]

_logger = logging.getLogger("greenroom")

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
        self.generation = self.code_since = 0
        """The latest that serves, and the first with the same code: a lost zygote's replacement is a later one.
        What is of one later still is on trial: a session gets new code when all do."""
        self.processes: dict[str, Process] = {}
        self.idle = IdleQueue()
        self.warming: set[Process] = set()
        self.breaker = Breaker()
        self.crowd = Crowd()
        self.demand = Demand()
        self.is_draining = False
        self.is_closing = False
        self.trouble: str | None = None
        """Why there is nothing to fork from, if that lasts."""
        self.empty = asyncio.Event()
        """Set while there is neither a process nor a job."""
        self.empty.set()
        self.jobs = Jobs(self)
        self.sampler = MemorySampler(services.events)
        self._known_facts: AppFacts | None = None
        """What was told last: while a lost zygote is replaced, its processes serve, and its app has its say."""
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

    @property
    def has_heard_app(self) -> bool:
        return self._known_facts is not None

    @property
    def facts(self) -> AppFacts:
        """What is known of the app that is served."""
        return self._known_facts or AppFacts(False, {})

    # --- idle processes --------------------------------------------------------------------------

    def take_idle(self) -> Process | None:
        """The next idle process that is alive at this moment; those of the present generation first."""
        found, unfit = None, []
        for process in self.idle.in_order(self.generation):
            if process.is_alive():
                found = process
                break
            unfit.append(process)
        for process in unfit:
            process.found_unfit()
        return found

    # --- processes -------------------------------------------------------------------------------

    def balance(self) -> None:
        """Request the forks that are missing, as far as bounds and breaker allow."""
        if self.launcher is None or self.is_closing:
            return
        now, generation = self.clock.now(), self.launcher.generation
        generations = self._warming_to_serve()
        warming = generations.count(generation)
        missing = forks_needed(
            idle_target=self.idle_target(),
            idle=self.idle.count(generation),
            waiting=len(self.jobs.waiting),
            warming=warming,
            outgoing=len(generations) - warming,
            concurrent=self._prewarms_allowed(),
        )
        for _ in range(missing):
            if self.launcher is None or not self.fork_from(self.launcher):
                break
        if self.breaker.wait(now) > 0 and self._retry is None:
            self._retry = self.clock.call_later(self.breaker.wait(now), self._try_again)

    def balance_soon(self) -> None:
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

    def expected_wait(self) -> float | None:
        """Seconds that a session which came now would wait for a process; ``None`` if there is nothing to fork from."""
        if self.launcher is None:
            return None
        return expected_wait(
            idle=len(self.idle),
            waiting=len(self.jobs.waiting),
            refill_seconds=self.demand.refill_seconds,
            concurrent=max(self._prewarms_allowed(), 1),
            delay=self.breaker.wait(self.clock.now()),
        )

    def most_prewarms(self) -> int:
        """Return how many may become warm at once, by how long it took those before them."""
        return self.crowd.bounded(self.options.max_concurrent_prewarms)

    def _prewarms_allowed(self) -> int:
        in_progress = len(self._warming_to_serve())
        return self.breaker.tries_allowed(self.clock.now(), in_progress, self.most_prewarms())

    def _warming_to_serve(self) -> list[int]:
        """The generations of those that become warm. What is on trial has a bound of its own: new code that hangs
        in its prewarm must not take the places of what is served."""
        return [process.generation for process in self.warming if process.generation <= self.generation]

    def shed_unwanted(self, decision: Decision) -> None:
        """End the processes that are idle or become warm, if no job waits for one."""
        if not self.jobs.waiting:
            for process in [*self.idle, *self.warming]:
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
        self._tell_change(process, "")
        launcher.fork(process)
        return True

    def _try_again(self) -> None:
        self._retry = None
        self.balance()

    def note_if_empty(self) -> None:
        if not self.processes and not self.jobs.live:
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
            self.services.events.publish(BreakerChanged(True, cause))
            extra = log_fields("breaker_opened", cause=cause)
            _logger.error("sessions are turned down until a process becomes warm again: %s", cause, extra=extra)

    def _explain_failure(self, cause: str) -> None:
        """Tell what is known now that the process is gone."""
        self.breaker.explained(cause)
        failures = self.breaker.failures
        extra = log_fields("prewarm_failed", cause=cause, failures=failures)
        _logger.warning("a process did not become warm (%d in a row): %s", failures, cause, extra=extra)
        self._on_warm_failure()

    def use_launcher(self, launcher: Launcher, *, has_new_code: bool) -> None:
        """Fork from this one from now on; what is idle of it may serve."""
        self.launcher, self.trouble = launcher, None
        self.generation = launcher.generation
        if has_new_code:
            self.code_since = launcher.generation
        self._take_on(launcher)
        proven = [process for process in self.processes_of(launcher) if process.is_idle]
        for process in sorted(proven, key=lambda process: process.idle_since):
            self._may_serve(process)
        self.jobs.serve_waiting()
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
        self.sampler.look(self._in_state)
        for process in [process for process in self.idle if process.is_adopted and not process.is_alive()]:
            process.found_unfit()  # there is no zygote to tell that it was stopped
        settled = (process for process in self.idle if now - process.idle_since >= SETTLED)
        if self.breaker.failures and any(process.idle_since > self._last_failure for process in settled):
            self._note_success()
        surplus = len(self.idle) - self.idle_target()
        ttl = self.options.idle_ttl
        for process in self.idle.oldest(surplus):
            if now - process.idle_since >= ttl:
                process.stop(Decision("idle_expired", f"it was idle for idle_ttl ({ttl:g} s), and not needed"))
        self.balance()

    def resize(self, num_idle: int, max_idle: int | None) -> None:
        if max_idle is None and self.options.max_idle_processes is not None:
            max_idle = max(self.options.max_idle_processes, num_idle)
        self.services.terms = self.services.terms.resized(num_idle, max_idle)
        self.services.options = replace(self.options, num_idle_processes=num_idle, max_idle_processes=max_idle)
        self.services.events.publish(Resized(num_idle, max_idle))
        for process in self.idle.oldest(len(self.idle) - self.idle_target()):
            process.stop(Decision("idle_expired", "the pool was made smaller"))
        self.balance()

    def _in_state(self, state: State) -> list[Process]:
        return [process for process in self.processes.values() if process.state is state]

    def live_pids(self) -> set[int]:
        """Return the pid of each process that is not reaped."""
        return {process.pid for process in self.processes.values() if process.pid is not None}

    def running_pids(self) -> set[int]:
        """Return the pid of each process that is not dead."""
        dead = (State.EXITED, State.REAPED)
        living = (process for process in self.processes.values() if process.state not in dead)
        return {process.pid for process in living if process.pid is not None}

    # --- what processes tell ---------------------------------------------------------------------

    def _tell_change(self, process: Process, before: str) -> None:
        if self.services.events.has_subscribers and before != process.state.public:
            job_id = process.launch.job_id if process.launch else None
            ids = (process.id, process.pid, process.generation)
            self.services.events.publish(ProcessChanged(*ids, before, process.state.public, job_id))

    def changed(self, process: Process, before: State) -> None:
        self._tell_change(process, before.public)
        if before is State.IDLE:
            self.idle.discard(process)
        if before is State.RESERVED and process.state is State.KILLING and process.launch is not None:
            self.jobs.answer_lost(process, process.launch)
        if process.state not in _WARMING:
            self.warming.discard(process)
            # Counted at once: it may take long to exit, and its place is free already.
            if before in _WARMING and process.state is not State.IDLE and self._was_wanted(process):
                self._count_failure(process.fate)
                if process.has_missed_prewarm:
                    self._thin_crowd(process)

    def _thin_crowd(self, late: Process) -> None:
        """Let fewer become warm at once, if one missed its time beside others."""
        if self.crowd.missed(late.id, self._warming_ids(), self.options.max_concurrent_prewarms):
            text = "a process missed prewarm_timeout while others became warm beside it; from now on %d at once may"
            self._tell_crowd(logging.WARNING, text)

    def _warming_ids(self) -> list[str]:
        return [process.id for process in self.warming]

    def _tell_crowd(self, level: int, text: str) -> None:
        allowed, most = self.most_prewarms(), self.options.max_concurrent_prewarms
        self.services.events.publish(PrewarmsBounded(allowed, most))
        _logger.log(level, text, allowed, extra=log_fields("prewarms_bounded", allowed=allowed, most=most))

    def became_idle(self, process: Process) -> None:
        self.demand.refilled(process.refill_seconds)
        if self.crowd.kept(process.id, self._warming_ids(), self.options.max_concurrent_prewarms):
            text = "processes become warm in time again; from now on %d at once may"
            self._tell_crowd(logging.INFO, text)
        seconds = (process.fork_seconds, process.prewarm_seconds, process.refill_seconds)
        self.services.events.publish(ProcessWarmed(process.id, process.pid, process.generation, *seconds))
        if process.generation <= self.generation:
            self._may_serve(process)
        self._on_idle(process)
        self._offer_idle()

    def _may_serve(self, process: Process) -> None:
        self._take_on(process.launcher)
        self.idle.add(process)

    def _take_on(self, launcher: Launcher) -> None:
        """Go by what its app says, if it has told. A spawner hears of the app from the first of its processes."""
        if launcher is self.launcher and launcher.facts not in (None, self._known_facts):
            self._known_facts = launcher.facts
            self.services.options = self.services.terms.with_app(unpacked(self.facts.settings))

    def released(self, process: Process) -> None:
        if process.generation < self.code_since:
            process.stop(Decision("drained", "its code was reloaded"))
        else:
            self.idle.add(process)
            self._offer_idle()

    def _offer_idle(self) -> None:
        self.jobs.serve_waiting()
        if self.is_draining:
            self.shed_unwanted(Decision("drained", "the pool is draining"))
        self.balance()

    def answered(self, process: Process, answer: Answer, body: bytes) -> None:
        if process.launch is not None:
            self.jobs.answered(process.launch, answer, body)

    def reservation_overdue(self, process: Process) -> None:
        if process.launch is not None:
            self.jobs.reservation_overdue(process.launch)

    def started(self, process: Process) -> None:
        self._note_success()
        if process.launch is not None:
            self.jobs.started(process, process.launch)

    def _note_success(self) -> None:
        if self.breaker.is_open:
            self.services.events.publish(BreakerChanged(False, None))
            _logger.info("a process has become warm: sessions are taken again", extra=log_fields("breaker_closed"))
        self.breaker.succeeded()

    def stalled(self, process: Process, stall: Stall) -> None:
        job_id = process.launch.job_id if process.launch else None
        self.services.events.publish(Stalled(process.id, process.pid, job_id, stall.value))
        extra = log_fields("stalled", **process.ids, kind=stall.value)
        if stall is Stall.STARVED:
            _logger.warning("%s is starved of CPU; it is left alone", process.label, extra=extra)
        else:
            _logger.warning("%s stalled: %s", process.label, stall.value, extra=extra)

    def died(self, process: Process) -> None:
        if process.launch is not None:
            if not process.acknowledged:
                self.jobs.lost_process(process, process.launch)
        elif not process.idle_since and self._was_wanted(process):
            self.breaker.explained(process.fate)  # its last words may have been read after its death was known

    def ended(self, process: Process, report: ExitReport) -> None:
        del self.processes[process.id]
        self.sampler.cost.ended(process.id)
        self.services.events.publish(ProcessEnded(report))
        launch = process.launch
        if launch is not None and launch.process is process:
            self.jobs.ended(process, launch, report)
        self._account_for(process, report)
        self._on_report(process, report)
        self.balance()
        self.note_if_empty()

    def _account_for(self, process: Process, report: ExitReport) -> None:
        """Tell failures to become, or to stay, warm from ends that were wanted."""
        if not self._was_wanted(process) or process.launch is not None or report.reason == "idle_expired":
            return
        if not process.idle_since:
            self._explain_failure(report.detail)
        elif report.signal != 9 and self.clock.now() - process.idle_since < SETTLED:
            self._failed(f"it died as soon as it was idle: {report.detail}")

    def _was_wanted(self, process: Process) -> bool:
        """Whether its end says something about the app; what becomes of old code, or of code
        on trial, says nothing about what is served."""
        is_served = self.code_since <= process.generation <= self.generation
        return is_served and not (process.is_recalled or process.was_abandoned)

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
