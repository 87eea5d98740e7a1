"""The core of the pool. One function takes in an event and returns its effects in order.

:meth:`PoolCore.handle` only dispatches. Each kind of record has a table of its own: process, job, launcher, generation
and question. The order of steps is a convention. A process moves before its job. Then the job queue serves the waiting
jobs. Then missing processes are requested.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..events import Draining
from . import accounts, generation, invariants, job, job_queue, launcher, process_messages, questions, resident, stats
from .effective_options import EffectiveOptions
from .exit_verdict import Decision
from .process_commands import end
from .records import Ask, Job, JobQueue, Launcher, Pool, Process, Timer
from .state_machine import step
from .states import (
    AskEvent,
    GenerationEvent,
    GenerationState,
    JobEvent,
    JobQueueState,
    LauncherEvent,
    LauncherState,
    ProcessEvent,
    ProcessState,
)
from .vocabulary import (
    WARNING,
    Answered,
    AskApp,
    AskResident,
    Awoke,
    Cancel,
    CleaningUp,
    Close,
    Closed,
    Died,
    Drain,
    Dumped,
    Effect,
    Emptied,
    Ended,
    Ending,
    Examined,
    Forked,
    ForkFailed,
    GiveUpReload,
    Happening,
    HasReloaded,
    Hello,
    Launch,
    LauncherBegan,
    LauncherBroke,
    LauncherDumped,
    LauncherFailed,
    LauncherLoaded,
    LauncherLost,
    LauncherSpawned,
    LaunchReserved,
    Log,
    Measured,
    Nonsense,
    Open,
    Overcrowded,
    Overweight,
    PrewarmFailed,
    Reaped,
    Release,
    Reload,
    Reserve,
    Resize,
    Sampled,
    SetNews,
    Stalled,
    Started,
    Stopped,
    Tick,
    Unfit,
    Waits,
    Warm,
)

__all__ = ["PoolCore"]


class PoolCore:
    """Decisions of one pool, without any action.

    ``now`` is in seconds, on a clock that stands still while the supervisor does. Wall time is ``now`` plus ``offset``.
    """

    def __init__(self, effective: EffectiveOptions, *, offset: float = 0.0) -> None:
        self.pool = Pool(effective=effective, options=effective.options, offset=offset)

    def handle(self, event: Happening, now: float) -> list[Effect]:
        """Handle an event and return its effects. Perform all of them, in order, before the next call."""
        pool = self.pool
        pool.now = now
        _HANDLERS[type(event)](pool, event)
        _settle(pool)
        effects, pool.effects = pool.effects, []
        return effects

    def next_deadline(self) -> float | None:
        """Return the time of the next :class:`Tick`; ``None`` without a deadline."""
        return self.pool.deadlines.next()

    def candidate(self) -> Process | None:
        """Return the idle process that the next job would get. The shell checks first if this process is alive."""
        return job_queue.candidate(self.pool)

    def idle_target(self) -> int:
        """Return the number of processes that should be idle."""
        return generation.idle_target(self.pool)

    def stats(self) -> dict[str, Any]:
        """Return the fields of :class:`~greenroom.PoolStats` at this moment."""
        return stats.of_pool(self.pool)

    def idle_processes(self) -> list[str]:
        """Return the ids of the idle processes."""
        serving = self.pool.serving
        return list(serving.idle) if serving is not None else []

    def running_processes(self) -> list[str]:
        """Return the ids of the processes whose job runs."""
        return [one.id for one in self.pool.processes.values() if one.state is ProcessState.RUNNING]

    def invariants(self) -> list[str]:
        """Return a sentence for each broken invariant. Each one is a fault of the core."""
        return invariants.violations(self.pool)


# --- after each event ----------------------------------------------------------------------------


def _settle(pool: Pool) -> None:
    if pool.job_queue.waiting:
        job_queue.serve(pool)
    if pool.is_unbalanced:
        _begin_loads(pool)
        if len(pool.generations) > 1:
            _end_retired(pool)
        if pool.refill.due is None:
            generation.balance(pool)
        _go_on_housekeeping(pool)
        if pool.job_queue.state is JobQueueState.DRAINING:
            _shed(pool)
    if not pool.is_empty and not pool.processes and not pool.job_queue.jobs:
        pool.is_empty = True
        pool.emit(Emptied())
    if pool.job_queue.state is JobQueueState.CLOSING and pool.is_empty:
        _close_launchers(pool)


def _begin_loads(pool: Pool) -> None:
    """Begin the next reload, or replace a lost launcher. Only one generation at a time is on trial."""
    serving = pool.serving
    if (
        pool.job_queue.reloads
        and serving is not None
        and pool.trial is None
        and pool.job_queue.state is JobQueueState.OPEN
    ):
        generation.make(pool, request_number=pool.job_queue.reloads.popleft())
    launcher.replace_missing(pool)


def _end_retired(pool: Pool) -> None:
    for retired in list(pool.generations.values()):
        if retired.state is not GenerationState.RETIRED or retired.processes:
            continue
        if retired.launcher is None:
            step(pool, retired, GenerationEvent.EMPTY)
        elif retired.launcher.state is LauncherState.UP:
            step(pool, retired.launcher, LauncherEvent.CLOSE)


def _shed(pool: Pool) -> None:
    """End the idle and warming processes of a draining pool, unless a job waits for a process."""
    serving = pool.serving
    if serving is not None and not pool.job_queue.waiting:
        unwanted = [*serving.idle.values(), *serving.warming.values()]
        if serving.resident is not None and not questions.is_needed(pool, serving):
            unwanted.append(serving.resident)
        for one in unwanted:
            _stop(pool, one, Decision("drained", "the pool is draining"))


def _close_launchers(pool: Pool) -> None:
    for one in list(pool.launchers.values()):
        if one.state not in (LauncherState.CLOSING, LauncherState.KILLED, LauncherState.UNKILLED):
            step(pool, one, LauncherEvent.CLOSE)
    if not pool.launchers:
        pool.job_queue.state = JobQueueState.CLOSED
        _stop_clocks(pool)
        pool.emit(Closed())


def _stop_clocks(pool: Pool) -> None:
    for timer in (pool.refill, pool.housekeeping, pool.retry, pool.job_queue):
        pool.deadlines.clear(timer)


def _stop(pool: Pool, one: Process, decision: Decision) -> None:
    end(pool, one, ProcessEvent.STOP, decision)


# --- callers -------------------------------------------------------------------------------------


def _open(pool: Pool, event: Open) -> None:
    pool.job_queue.state = JobQueueState.OPEN
    generation.make(pool)


def _launch_reserved(pool: Pool, event: LaunchReserved) -> None:
    job.launch_reserved(pool, pool.job_queue.jobs.get(event.number), event)


def _ask_app(pool: Pool, event: AskApp) -> None:
    job.ask_app(pool, pool.job_queue.jobs.get(event.number), event)


def _release(pool: Pool, event: Release) -> None:
    found = pool.job_queue.jobs.get(event.number)
    if found is not None:  # else the reservation is over already
        job.release(pool, found, event.cause)


def _cancel(pool: Pool, event: Cancel) -> None:
    found = pool.job_queue.jobs.get(event.number)
    if found is not None:
        job.cancel(pool, found, event)


def _reload(pool: Pool, event: Reload) -> None:
    closed = generation.reason_not_to_load(pool)
    if closed is not None:
        pool.emit(HasReloaded(event.number, closed))
        return
    pool.job_queue.reloads.append(event.number)
    pool.is_unbalanced = True


def _give_up_reload(pool: Pool, event: GiveUpReload) -> None:
    if event.number in pool.job_queue.reloads:
        pool.job_queue.reloads.remove(event.number)
    elif pool.trial is not None and pool.trial.request == event.number:
        step(pool, pool.trial, GenerationEvent.FAILED, None)


def _drain(pool: Pool, event: Drain) -> None:
    if pool.job_queue.state is JobQueueState.OPEN:
        pool.job_queue.state = JobQueueState.DRAINING
        pool.emit(Draining(event.timeout, at=pool.wall))
        _give_up_reloads(pool)
        accounts.settle(pool)  # ends the wait in start(), since no more processes become warm
    elif pool.job_queue.state is not JobQueueState.DRAINING:
        return
    if pool.job_queue.due is None or event.timeout < pool.job_queue.due - pool.now:
        pool.job_queue.drain_timeout = event.timeout
        pool.deadlines.set(pool.job_queue, pool.now, event.timeout)
    pool.is_unbalanced = True
    if pool.is_empty:
        pool.emit(Emptied())


def _drain_overdue(pool: Pool, desk_: JobQueue) -> None:
    timeout, count = pool.job_queue.drain_timeout, len(pool.job_queue.jobs)
    text = f"the drain took longer than {timeout:g} s; its last {count} jobs are ended"
    pool.emit(Log(WARNING, text, {"event": "drain_overdue", "jobs": count}))
    _end_jobs(pool, Decision("drained", f"the pool was drained, and the job did not end within {timeout:g} s"))
    pool.is_unbalanced = True


def _close(pool: Pool, event: Close) -> None:
    decision = Decision("drained", "the pool was closed at once" if event.kill else "the pool was closed")
    if event.kill:
        for one in list(pool.processes.values()):
            end(pool, one, ProcessEvent.KILL, decision)
    if pool.job_queue.state in (JobQueueState.CLOSING, JobQueueState.CLOSED):
        return
    pool.job_queue.state = JobQueueState.CLOSING
    _stop_clocks(pool)
    _give_up_reloads(pool)
    _end_jobs(pool, decision)
    for of in pool.generations.values():
        questions.give_up(pool, of, "the pool was closed")
    for one in list(pool.processes.values()):
        _stop(pool, one, decision)
    for loading in list(pool.launchers.values()):
        if loading.state is not LauncherState.UP:  # its load is not needed; a launcher that is up still reaps
            step(pool, loading, LauncherEvent.CLOSE)
    pool.is_unbalanced = True


def _give_up_reloads(pool: Pool) -> None:
    """Fail all reloads. New code would get no jobs, and code on trial would delay the end of the pool."""
    closed = generation.reason_not_to_load(pool)
    assert closed is not None
    for one in list(pool.generations.values()):
        if one.state in (GenerationState.LOADING, GenerationState.PROVING):
            step(pool, one, GenerationEvent.FAILED, closed)
    while pool.job_queue.reloads:
        pool.emit(HasReloaded(pool.job_queue.reloads.popleft(), closed))


def _end_jobs(pool: Pool, decision: Decision) -> None:
    # End the waiting jobs first, so that they do not get the processes that other jobs release.
    for one in [*pool.job_queue.waiting, *pool.job_queue.jobs.values()]:
        if one.number in pool.job_queue.jobs:
            job.cancel_for(pool, one, decision)


# --- the clock -----------------------------------------------------------------------------------


def _tick(pool: Pool, event: Tick) -> None:
    while (record := pool.deadlines.pop_due(pool.now)) is not None:
        _OVERDUE[type(record)](pool, record)


def _awoke(pool: Pool, event: Awoke) -> None:
    pool.offset = event.offset


def _timer_overdue(pool: Pool, timer: Timer) -> None:
    if timer is not pool.housekeeping:
        pool.is_unbalanced = True
        return
    generation.keep_house(pool)
    if not pool.is_unbalanced:
        _go_on_housekeeping(pool)


def _go_on_housekeeping(pool: Pool) -> None:
    if pool.housekeeping.due is None and generation.needs_housekeeping(pool):
        pool.deadlines.set(pool.housekeeping, pool.now, generation.HOUSEKEEPING)


_OVERDUE: dict[type, Callable[[Pool, Any], object]] = {
    Process: lambda pool, record: step(pool, record, ProcessEvent.OVERDUE),
    Job: lambda pool, record: step(pool, record, JobEvent.OVERDUE),
    Launcher: lambda pool, record: step(pool, record, LauncherEvent.OVERDUE),
    Ask: lambda pool, record: step(pool, record, AskEvent.OVERDUE),
    Timer: _timer_overdue,
    JobQueue: _drain_overdue,
}


# --- launchers and processes ---------------------------------------------------------------------


def _of_launcher(act: Callable[[Pool, Launcher, Any], object]) -> Callable[[Pool, Any], None]:
    """Return a handler that finds the launcher of an event. An event of a lost launcher is ignored."""

    def handle(pool: Pool, event: Any) -> None:
        found = pool.launchers.get(event.launcher)
        if found is not None:
            act(pool, found, event)

    return handle


def _launcher_step(what: LauncherEvent) -> Callable[[Pool, Any], None]:
    return _of_launcher(lambda pool, found, event: step(pool, found, what, event))


def _launcher_report(what: LauncherEvent) -> Callable[[Pool, Any], None]:
    return _of_launcher(lambda pool, found, event: launcher.reported(pool, found, what, event))


def _of_process(act: Callable[[Pool, Process, Any], object]) -> Callable[[Pool, Any], None]:
    """Return a handler that finds the process of an event. An event of a process that is gone is ignored."""

    def handle(pool: Pool, event: Any) -> None:
        found = pool.processes.get(event.process)
        if found is not None:
            act(pool, found, event)

    return handle


def _process_step(what: ProcessEvent) -> Callable[[Pool, Any], None]:
    def handle(pool: Pool, event: Any) -> None:
        found = pool.processes.get(event.process)
        if found is not None:
            step(pool, found, what, event)

    return handle


def _examined(pool: Pool, found: Process, event: Examined) -> None:
    step(pool, found, ProcessEvent.TRACED if event.is_traced else ProcessEvent.UNTRACED, event)


_MESSAGE = _of_process(process_messages.handle)

_HANDLERS: dict[type, Callable[[Pool, Any], None]] = {
    Open: _open,
    Launch: job_queue.accept,
    Reserve: job_queue.offer,
    LaunchReserved: _launch_reserved,
    AskApp: _ask_app,
    AskResident: questions.ask_resident,
    SetNews: resident.set_news,
    Release: _release,
    Cancel: _cancel,
    Resize: generation.resize,
    Reload: _reload,
    GiveUpReload: _give_up_reload,
    Drain: _drain,
    Close: _close,
    Tick: _tick,
    Awoke: _awoke,
    LauncherSpawned: _launcher_report(LauncherEvent.SPAWNED),
    LauncherBegan: _launcher_report(LauncherEvent.BEGAN),
    LauncherLoaded: _of_launcher(launcher.loaded),
    LauncherFailed: _of_launcher(launcher.failed),
    LauncherDumped: _launcher_report(LauncherEvent.DUMPED),
    LauncherBroke: _of_launcher(launcher.broke),
    LauncherLost: _launcher_step(LauncherEvent.LOST),
    Forked: _process_step(ProcessEvent.FORKED),
    ForkFailed: _process_step(ProcessEvent.FORK_FAILED),
    Sampled: _process_step(ProcessEvent.SAMPLED),
    Hello: _MESSAGE,
    Warm: _MESSAGE,
    PrewarmFailed: _MESSAGE,
    Answered: _MESSAGE,
    Started: _MESSAGE,
    Ending: _MESSAGE,
    Ended: _MESSAGE,
    CleaningUp: _MESSAGE,
    Nonsense: _MESSAGE,
    Waits: _of_process(process_messages.waits),
    Stopped: _process_step(ProcessEvent.STOPPED),
    Stalled: _of_process(process_messages.stalled),
    Overweight: _of_process(process_messages.overweight),
    Overcrowded: _of_process(process_messages.overcrowded),
    Measured: _of_process(lambda pool, found, event: accounts.measured(pool, found, event.private_mb)),
    Dumped: _process_step(ProcessEvent.DUMPED),
    Unfit: _of_process(process_messages.unfit),
    Died: _process_step(ProcessEvent.DIED),
    Examined: _of_process(_examined),
    Reaped: _process_step(ProcessEvent.REAPED),
}
