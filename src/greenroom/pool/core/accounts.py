"""Accounts of the pool: failures and successes of processes, prewarms at the same time, memory and stalls."""

from __future__ import annotations

from ...exit_report import ExitReport
from ..events import BreakerChanged, MemorySampled, PrewarmsBounded
from ..events import Stalled as StalledEvent
from .records import Generation, Job, Pool, Process
from .stalls import Stall
from .states import GenerationState, JobQueueState, ProcessState
from .vocabulary import ERROR, INFO, WARNING, Log, Settled

__all__ = [
    "became_warm",
    "ended",
    "failed_to_warm",
    "may_try_again",
    "measured",
    "most_prewarms",
    "note_stall",
    "note_success",
    "settle",
    "start_seconds",
]

MAX_ATTEMPTS = 3
"""Limit of attempts to start a job. Each attempt uses another process."""
SHORTEST_START = 0.05
"""Seconds that a process has at least to acknowledge a job, even close to the caller's deadline."""
SETTLED = 1.0
"""Seconds idle after which a process counts as a success. A process that dies sooner was not really warm."""


def most_prewarms(pool: Pool) -> int:
    """Return the number of processes that may become warm at once. Misses of ``prewarm_timeout`` lower this number."""
    return pool.crowd.bounded(pool.options.max_concurrent_prewarms)


def start_seconds(pool: Pool, job: Job) -> float:
    """Return the seconds that a process has to acknowledge a job. The caller's deadline can shorten this time."""
    return min(pool.options.start_timeout, max(job.expires_at - pool.now, SHORTEST_START))


def may_try_again(pool: Pool, process: Process, job: Job) -> bool:
    """Return true if a job may go to another process, after this process died without an acknowledgement.

    A process that broke the protocol may have sent an acknowledgement that was not read. The job of such a
    process must not run twice.
    """
    is_possible = job.attempts < MAX_ATTEMPTS and pool.now < job.expires_at and not process.is_distrusted
    return is_possible and pool.job_queue.state in (JobQueueState.OPEN, JobQueueState.DRAINING)


def settle(pool: Pool) -> None:
    """Emit :class:`Settled` once, which ends the wait of ``ProcessPool.start`` for warm processes."""
    if not pool.is_settled:
        pool.is_settled = True
        pool.emit(Settled())


def became_warm(pool: Pool, process: Process, refill_seconds: float) -> None:
    """Note that a process has become warm in time."""
    pool.demand.refilled(refill_seconds)
    if pool.crowd.kept(process.id, _crowd_of(process), pool.options.max_concurrent_prewarms):
        _report_crowd(pool, INFO, "processes become warm in time again; from now on, at most %d become warm at once")


def failed_to_warm(pool: Pool, process: Process) -> None:
    """Count, once for each process, that it did not become warm. A process that is not wanted does not count."""
    if process.is_counted or not _is_wanted(process):
        return
    process.is_counted = True
    _count_failure(pool, process.generation, process.fate)
    has_missed = process.decision is not None and process.decision.reason == "prewarm_timeout"
    if has_missed and pool.crowd.missed(process.id, _crowd_of(process), pool.options.max_concurrent_prewarms):
        text = "a process missed prewarm_timeout while others became warm; from now on, at most %d become warm at once"
        _report_crowd(pool, WARNING, text)


def ended(pool: Pool, process: Process, report: ExitReport, *, had_job: bool) -> None:
    """Count and report the end of a process that did not become warm, or did not stay warm."""
    # A resident process that had work may have ended because of this work, which says nothing about jobs.
    if not _is_wanted(process) or had_job or process.was_put_to_work or report.reason == "idle_expired":
        return
    if not process.idle_since:
        _explain_failure(pool, process.generation, report.detail)
    elif report.signal != 9 and pool.now - process.idle_since < SETTLED:
        cause = f"it died as soon as it was idle: {report.detail}"
        _count_failure(pool, process.generation, cause)
        _explain_failure(pool, process.generation, cause)


def note_success(pool: Pool, generation: Generation) -> None:
    """Note that processes become warm and stay warm."""
    if generation.breaker.is_open and generation.state is GenerationState.SERVING:
        pool.emit(BreakerChanged(False, None, at=pool.wall))
        text = "a process has become warm: jobs are accepted again"
        pool.emit(Log(INFO, text, {"event": "breaker_closed"}))
    generation.breaker.succeeded()


def measured(pool: Pool, process: Process, private_mb: float) -> None:
    """Note the private memory, in MiB, of a process that is idle or runs a job."""
    if process.state is ProcessState.IDLE:
        pool.cost.sampled_idle(private_mb)
    elif process.state is ProcessState.RUNNING:
        pool.cost.sampled_running(process.id, private_mb)
    else:
        return  # the state has changed since the sample
    pool.emit(MemorySampled(process.id, process.pid or 0, process.state.public, round(private_mb, 3), at=pool.wall))


def note_stall(pool: Pool, process: Process, stall: Stall) -> None:
    """Report a stall of the process's event loop."""
    job_id = process.job.id if process.job is not None else None
    pool.emit(StalledEvent(process.id, process.pid, job_id, stall.value, at=pool.wall))
    fields = {"event": "stalled", **process.ids, "kind": stall.value}
    text = f"{process.label} stalled: {stall.value}"
    if stall is Stall.STARVED:
        text = f"{process.label} is starved of CPU; it is not ended"
    pool.emit(Log(WARNING, text, fields))


def _is_wanted(process: Process) -> bool:
    """Return true if the end of the process says something about the app that serves.

    A process with old code, or with code on trial, says nothing about the app that serves.
    """
    is_served = process.generation.state is GenerationState.SERVING
    return is_served and not process.is_recalled and not process.is_abandoned


def _count_failure(pool: Pool, generation: Generation, cause: str) -> None:
    was_open = generation.breaker.is_open
    generation.last_failure = pool.now
    generation.breaker.failed(pool.now, cause)
    if generation.breaker.is_open and not was_open:
        pool.emit(BreakerChanged(True, cause, at=pool.wall))
        text = f"jobs are rejected until a process becomes warm: {cause}"
        pool.emit(Log(ERROR, text, {"event": "breaker_opened", "cause": cause}))


def _explain_failure(pool: Pool, generation: Generation, cause: str) -> None:
    """Report the cause of a failure. The full cause is known only after the end of the process."""
    generation.breaker.explained(cause)
    failures = generation.breaker.failures
    fields = {"event": "prewarm_failed", "cause": cause, "failures": failures}
    pool.emit(Log(WARNING, f"a process did not become warm ({failures} in a row): {cause}", fields))
    settle(pool)


def _crowd_of(process: Process) -> list[str]:
    return list(process.generation.warming)


def _report_crowd(pool: Pool, level: int, text: str) -> None:
    allowed, most = most_prewarms(pool), pool.options.max_concurrent_prewarms
    pool.emit(PrewarmsBounded(allowed, most, at=pool.wall))
    fields = {"event": "prewarms_bounded", "allowed": allowed, "most": most}
    pool.emit(Log(level, text % allowed, fields))
