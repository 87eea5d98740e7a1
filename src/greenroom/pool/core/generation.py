"""Table of a generation's life, and the number of its processes.

``loading → proving → serving → retired → gone``. The first generation is not proven: it serves as soon as it is loaded.

A generation is one version of the app's code. A reload makes a generation, proves its code, and serves from it. Then
the generation before is retired. A lost launcher is replaced inside its generation. If the code on disk has changed
meanwhile, a new generation is made and proven first.

The processes of a generation are forked by its launcher: a zygote or, if processes are spawned, a spawner.
"""

from __future__ import annotations

from dataclasses import replace

from ...app_facts import AppFacts, unpacked
from ...errors import GreenroomError, PoolClosed, PrewarmError
from ...exit_report import ExitReport
from ..events import BreakerChanged, Reloaded, ReloadFailed, Resized, ZygoteStarted
from . import accounts, questions, resident
from .exit_verdict import Decision
from .process_commands import end, request
from .records import Generation, Launcher, Pool, Process
from .sizing import expected_wait as wait_by
from .sizing import forks_needed
from .state_machine import Machine, Row, register, step
from .states import Bound, JobQueueState, LauncherEvent, LauncherState, ProcessEvent
from .states import GenerationEvent as E
from .states import GenerationState as S
from .vocabulary import ERROR, HasReloaded, Log, Opened, Resize, Script

__all__ = [
    "TABLE",
    "UNBOUNDED",
    "balance",
    "became_idle",
    "expected_wait",
    "idle_target",
    "keep_house",
    "learn",
    "make",
    "make_launcher",
    "needs_housekeeping",
    "process_ended",
    "reason_not_to_load",
    "resize",
]

_DRAINS = {JobQueueState.DRAINING: "the pool is draining", JobQueueState.CLOSING: "the pool was closed"}
"""Causes to give up code that is loaded or proven, apart from a fault of the code itself."""
HOUSEKEEPING = 0.5
"""Seconds between two checks of the idle processes, in :func:`keep_house`."""


# --- making and loading --------------------------------------------------------------------------


def make(pool: Pool, *, request_number: int | None = None, launcher: Launcher | None = None) -> Generation:
    """Begin a generation of the code that ``launcher`` has loaded. Without ``launcher``, begin a launcher, too."""
    pool.generations_made += 1
    number = pool.generations_made
    made = Generation(number=number, options=pool.effective.options, request=request_number, began_at=pool.now)
    pool.generations[number] = made
    if pool.serving is not None:
        pool.trial = made
    if launcher is None:
        make_launcher(pool, made, script="run" if pool.serving is None else "renew", delay=0.0)
    else:
        launcher.generation, made.launcher = made, launcher
    return made


def make_launcher(pool: Pool, of: Generation, *, script: Script, delay: float) -> Launcher:
    """Begin a launcher for a generation. The launcher is started after ``delay`` seconds."""
    pool.launchers_made += 1
    made = Launcher(
        number=pool.launchers_made,
        generation=of,
        script=script,
        is_parent=pool.effective.options.start_method != "spawn",
    )
    pool.launchers[made.number] = of.launcher = made
    pool.deadlines.set(made, pool.now, delay)
    return made


def learn(pool: Pool, generation: Generation, facts: AppFacts) -> None:
    """Adopt the facts and settings of the app. Raises :class:`AppLoadError` if a setting is invalid."""
    options = pool.effective.with_app(unpacked(facts.settings))
    generation.options, generation.facts = options, facts
    if generation is pool.serving:
        _take_on(pool, generation)


def _take_on(pool: Pool, generation: Generation) -> None:
    """Adopt the facts and options of the serving generation, if the app has reported its facts."""
    if generation.facts is not None and generation.facts != pool.facts:
        pool.facts = generation.facts
        pool.options = pool.effective.with_app(unpacked(generation.facts.settings))


def reason_not_to_load(pool: Pool) -> PoolClosed | None:
    """Return the reason why no new code is loaded; ``None`` if the pool neither drains nor closes."""
    if pool.job_queue.state is JobQueueState.DRAINING:
        return PoolClosed("the pool is draining: it is not reloaded any more")
    if pool.job_queue.state in (JobQueueState.CLOSING, JobQueueState.CLOSED):
        return PoolClosed("the pool is closed: its app is not loaded any more")
    return None


# --- actions -------------------------------------------------------------------------------------


def _serve(pool: Pool, generation: Generation, data: object) -> None:
    """Start jobs in the processes of the generation from now on, and retire the generation before."""
    before, pool.serving, pool.trial = pool.serving, generation, None
    _take_on(pool, generation)
    if before is not None and before.breaker.is_open:
        pool.emit(BreakerChanged(False, None, at=pool.wall))
    _announce(pool, generation)
    if before is None:
        pool.emit(Opened())
    else:
        pool.launcher_breaker.succeeded()  # the old code may have caused the losses of launchers that were counted
        pool.emit(Reloaded(generation.number, pool.now - generation.began_at, at=pool.wall))
    if generation.request is not None:
        pool.emit(HasReloaded(generation.request))
    elif before is not None:
        pool.launcher_restarts += 1  # the launcher was begun in the place of a lost one
    if before is not None:
        step(pool, before, E.RETIRE, None)


def _resume(pool: Pool, generation: Generation, data: object) -> None:
    """Fork from the launcher that has replaced the lost launcher."""
    generation.trouble = None
    pool.launcher_restarts += 1
    _announce(pool, generation)


def _announce(pool: Pool, generation: Generation) -> None:
    launcher = generation.launcher
    pid = launcher.pid if launcher is not None else None
    started = ZygoteStarted(
        generation=generation.number,
        pid=pid,
        import_seconds=generation.import_seconds,
        preload_seconds=generation.preload_seconds,
        anonymous_mb=generation.anonymous_mb,
        huge_pages_mb=generation.huge_mb,
        huge_pages_seconds=generation.arrange_seconds,
        at=pool.wall,
    )
    pool.emit(started)
    pool.is_unbalanced = True


def _prove(pool: Pool, generation: Generation, data: object) -> None:
    """Request the processes that prove the new code: as many as the idle target, and at least one.

    Meanwhile the old code serves, and new processes are still forked from its launcher.
    """
    generation.to_fork = generation.to_warm = max(idle_target(pool), 1)  # a proof needs a process
    for _ in range(min(generation.to_fork, accounts.most_prewarms(pool))):
        _fork_for_proof(pool, generation)


def _fork_for_proof(pool: Pool, generation: Generation) -> None:
    if generation.to_fork > 0 and generation.launcher is not None:
        generation.to_fork -= 1
        request(pool, generation, generation.launcher)


def _fail(pool: Pool, generation: Generation, error: GreenroomError | None) -> None:
    """Give up the new code. The old code, if there is any, still serves.

    ``error`` is ``None`` if the caller of the reload does not wait any more.
    """
    if pool.trial is generation:
        pool.trial = None
    _let_go(pool, generation, _DRAINS.get(pool.job_queue.state, "the new code does not serve"))
    _close_unless_up(pool, generation)
    if error is None:
        return
    closed = reason_not_to_load(pool)  # an error here is the cause, and the code is not at fault
    if closed is None and pool.serving is not None:
        pool.emit(ReloadFailed(str(error), at=pool.wall))
    if generation.request is not None:
        pool.emit(HasReloaded(generation.request, closed or error))
    elif pool.serving is None:
        pool.emit(Opened(closed or error))
    elif not isinstance(error, PoolClosed):
        pool.launcher_breaker.failed(pool.now, str(error))
        pool.serving.trouble = f"there is no zygote to fork from: {error}"
        text = f"the zygote could not be replaced, because the code has changed; the pool tries again: {error}"
        pool.emit(Log(ERROR, text, {"event": "zygote_not_replaced", "cause": str(error)}))
        accounts.settle(pool)


def _retire(pool: Pool, generation: Generation, data: object) -> None:
    """End the processes without a job, since the generation gets no new jobs."""
    _let_go(pool, generation, "its code was reloaded")
    _close_unless_up(pool, generation)


def _close_unless_up(pool: Pool, generation: Generation) -> None:
    """Close a launcher that still loads. A launcher that is up must first report the ends of its processes."""
    launcher = generation.launcher
    if launcher is not None and launcher.state is not LauncherState.UP:
        step(pool, launcher, LauncherEvent.CLOSE)


def _let_go(pool: Pool, generation: Generation, cause: str) -> None:
    for process in list(generation.processes.values()):
        is_asked = process is generation.resident and bool(generation.asks)
        if process.job is None and not is_asked:
            end(pool, process, ProcessEvent.STOP, Decision("drained", cause))


def _vanish(pool: Pool, generation: Generation, data: object) -> None:
    del pool.generations[generation.number]
    questions.give_up(pool, generation, "its code was reloaded")


TABLE: dict[S, dict[E, Row]] = {
    S.LOADING: {
        E.LOADED: Row(S.SERVING, Bound.NONE, (_serve,)),
        E.LOADED_TO_PROVE: Row(S.PROVING, Bound.NONE, (_prove,)),
        E.FAILED: Row(S.RETIRED, Bound.NONE, (_fail,)),
    },
    S.PROVING: {
        E.PROVEN: Row(S.SERVING, Bound.NONE, (_serve,)),
        E.FAILED: Row(S.RETIRED, Bound.NONE, (_fail,)),
    },
    S.SERVING: {
        E.LOADED: Row(S.SERVING, Bound.NONE, (_resume,)),
        E.RETIRE: Row(S.RETIRED, Bound.NONE, (_retire,)),
    },
    S.RETIRED: {
        E.EMPTY: Row(S.GONE, Bound.NONE, (_vanish,)),
    },
    S.GONE: {},
}

UNBOUNDED: dict[S, str] = {
    S.LOADING: "its launcher has a deadline",
    S.PROVING: "each of its processes has prewarm_timeout",
    S.SERVING: "it serves until another generation serves",
    S.RETIRED: "it lives as long as its jobs",
    S.GONE: "its record is dropped",
}
"""Reasons why states have no deadline."""


# --- reports of its processes --------------------------------------------------------------------


def became_idle(pool: Pool, generation: Generation) -> None:
    """Note that one more process of the generation is idle. The last process that a proof needs ends the proof."""
    if generation.state is S.PROVING:
        generation.to_warm -= 1
        if generation.to_warm > 0:
            _fork_for_proof(pool, generation)
        else:
            step(pool, generation, E.PROVEN)
    elif generation.state is S.SERVING and not pool.is_settled and len(generation.idle) >= idle_target(pool):
        accounts.settle(pool)


def process_ended(pool: Pool, generation: Generation, process: Process, report: ExitReport) -> None:
    """Note the end of a process of the generation. A process that did not become warm fails a proof."""
    if generation.state is S.PROVING and not process.idle_since:
        step(pool, generation, E.FAILED, PrewarmError(f"the new code did not become warm: {report.detail}"))


# --- number of processes -------------------------------------------------------------------------


def idle_target(pool: Pool) -> int:
    """Return the number of processes that should be idle: 0 unless the pool is open."""
    if pool.job_queue.state is not JobQueueState.OPEN:
        return 0
    options = pool.options
    return pool.demand.idle_target(pool.now, options.num_idle_processes, options.idle_ceiling)


def expected_wait(pool: Pool) -> float | None:
    """Return the seconds that a new job would wait for a process; ``None`` if no launcher can fork."""
    serving = pool.serving
    if serving is None or not _can_fork(serving):
        return None
    return wait_by(
        idle=len(serving.idle),
        waiting=len(pool.job_queue.waiting),
        refill_seconds=pool.demand.refill_seconds,
        concurrent=max(_prewarms_allowed(pool, serving), 1),
        delay=serving.breaker.wait(pool.now),
    )


def balance(pool: Pool) -> None:
    """Request the missing processes, as far as the bounds and the breaker allow.

    The core calls this after each event that may have changed the numbers (``Pool.is_unbalanced``), except during the
    short delay after a claim (``Pool.refill``).
    """
    pool.is_unbalanced = False
    serving = pool.serving
    if (
        serving is None
        or not _can_fork(serving)
        or pool.job_queue.state in (JobQueueState.CLOSING, JobQueueState.CLOSED)
    ):
        return
    assert serving.launcher is not None
    _balance_resident(pool, serving, serving.launcher)
    outgoing = 1 if serving.resident is not None and serving.resident.id in serving.warming else 0
    target, idle, waiting = idle_target(pool), len(serving.idle), len(pool.job_queue.waiting)
    if idle < target + waiting:
        missing = forks_needed(
            idle_target=target,
            idle=idle,
            waiting=waiting,
            warming=len(serving.warming) - outgoing,
            outgoing=outgoing,
            concurrent=_prewarms_allowed(pool, serving),
        )
        for _ in range(missing):
            request(pool, serving, serving.launcher)
    delay = serving.breaker.wait(pool.now)
    if delay > 0:
        _try_again(pool, delay)


def _balance_resident(pool: Pool, serving: Generation, launcher: Launcher) -> None:
    """Request the resident process, if it is missing and the app has work for a resident process."""
    if (
        serving.resident is not None
        or not resident.is_wanted(serving.facts)
        or pool.job_queue.state is not JobQueueState.OPEN
    ):
        return
    delay = serving.resident_breaker.wait(pool.now)
    if delay > 0:
        _try_again(pool, delay)
    elif _prewarms_allowed(pool, serving) > len(serving.warming):
        request(pool, serving, launcher, is_resident=True)


def _try_again(pool: Pool, delay: float) -> None:
    """Schedule the next :func:`balance` in ``delay`` seconds, or sooner."""
    if pool.retry.due is None or pool.retry.due > pool.now + delay:
        pool.deadlines.set(pool.retry, pool.now, delay)


def _can_fork(generation: Generation) -> bool:
    return generation.launcher is not None and generation.launcher.state is LauncherState.UP


def _prewarms_allowed(pool: Pool, generation: Generation) -> int:
    in_progress = len(generation.warming)
    return generation.breaker.tries_allowed(pool.now, in_progress, accounts.most_prewarms(pool))


def keep_house(pool: Pool) -> None:
    """End surplus processes that were idle for ``idle_ttl``. Note a success if a process stays idle after a failure."""
    serving = pool.serving
    if serving is None:
        return
    settled = (process for process in serving.idle.values() if pool.now - process.idle_since >= accounts.SETTLED)
    if serving.breaker.failures and any(process.idle_since > serving.last_failure for process in settled):
        accounts.note_success(pool, serving)
        pool.is_unbalanced = True  # more attempts may be made at once
    ttl = pool.options.idle_ttl
    for process in _surplus(pool, serving):
        if pool.now - process.idle_since >= ttl:
            detail = f"it was idle for idle_ttl ({ttl:g} s), and not needed"
            end(pool, process, ProcessEvent.STOP, Decision("idle_expired", detail))


def needs_housekeeping(pool: Pool) -> bool:
    """Return true if :func:`keep_house` could have anything to do."""
    serving = pool.serving
    if serving is None or not serving.idle:
        return False
    return bool(serving.breaker.failures) or len(serving.idle) > pool.options.num_idle_processes


def resize(pool: Pool, message: Resize) -> None:
    """Set the numbers of idle processes, and end the surplus ones."""
    num_idle, max_idle = message.num_idle_processes, message.max_idle_processes
    if max_idle is None and pool.options.max_idle_processes is not None:
        max_idle = max(pool.options.max_idle_processes, num_idle)
    pool.effective = pool.effective.resized(num_idle, max_idle)
    pool.options = replace(pool.options, num_idle_processes=num_idle, max_idle_processes=max_idle)
    pool.emit(Resized(num_idle, max_idle, at=pool.wall))
    if pool.serving is not None:
        for process in _surplus(pool, pool.serving):
            end(pool, process, ProcessEvent.STOP, Decision("idle_expired", "the pool was made smaller"))
    pool.is_unbalanced = True


def _surplus(pool: Pool, generation: Generation) -> list[Process]:
    """Return the idle processes above the idle target. The process that has been idle for longest is first."""
    return list(generation.idle.values())[: max(len(generation.idle) - idle_target(pool), 0)]


# --- the machine ---------------------------------------------------------------------------------


def _seconds(pool: Pool, generation: Generation, bound: Bound) -> float | None:
    raise AssertionError(f"no row of a generation sets {bound}")


def _changed(pool: Pool, generation: Generation, before: S) -> None:
    pool.is_unbalanced = True


machine = register(Generation, Machine(TABLE, _seconds, _changed, lambda generation: f"generation {generation.number}"))
