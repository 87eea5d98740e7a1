"""Table of a job's life: ``waiting → starting → running → draining → ended``.

A reservation is a job that is not launched yet: ``offered → held → starting``, or ``withdrawn`` without a launch. A
promised reservation is ``unheld`` first.
:mod:`.states` explains all states and events, such as ``UNHELD``, ``RECALLED``, ``UNSTARTED``, ``FAILED``, ``END`` and
``SPARED``.

``Job.attempts`` counts only starts that were sent to a process. At most ``MAX_ATTEMPTS`` (3) processes are tried: see
:func:`.accounts.may_try_again`. If a reserved process is lost before the start is sent, the job only waits longer.
"""

from __future__ import annotations

from ...errors import GreenroomError, LaunchError
from ...exit_report import ExitReport
from ..events import ClaimFailed, JobAccepted, JobEnded, JobStarted, Released
from . import job_queue, process_commands, questions
from .exit_verdict import Decision
from .records import Job, Pool, Process
from .report_builder import unstarted_report
from .state_machine import Machine, Row, quiet, register, step
from .states import AskState, Bound, ProcessEvent, ProcessState
from .states import JobEvent as E
from .states import JobState as S
from .vocabulary import AskApp, Cancel, Granted, HasStarted, LaunchReserved, NotStarted, Over, Refused

__all__ = ["TABLE", "UNBOUNDED", "ask_app", "cancel", "cancel_for", "launch_reserved", "release"]

REFILL_DELAY = 0.002
"""Seconds from a claim or a hold until a new process is requested. The start of the job has the CPUs meanwhile."""


# --- actions: waiting and starting ---------------------------------------------------------------


def _queue(pool: Pool, job: Job, data: object) -> None:
    pool.job_queue.waiting.append(job)
    pool.deadlines.clear(pool.refill)  # a waiting job needs the next process without delay
    pool.is_unbalanced = True


def _put_back(pool: Pool, job: Job, data: object) -> None:
    job.process = None
    job_queue.put_back(pool, job)


def _part(pool: Pool, job: Job, process: Process) -> None:
    """Detach a reserved process that is lost. Nothing was sent to this process, so another process may get the job."""
    process.job = None


def _claim(pool: Pool, job: Job, process: Process) -> None:
    job.process = process
    job.attempts += 1
    job.claimed_wall = pool.wall
    process_commands.claim(pool, process, job)
    pool.deadlines.set(pool.refill, pool.now, REFILL_DELAY)


def _claim_held(pool: Pool, job: Job, data: object) -> None:
    assert job.process is not None
    pool.is_unbalanced = True  # in a drain, the request hook may not be needed any more
    _claim(pool, job, job.process)


def _hold(pool: Pool, job: Job, process: Process) -> None:
    job.process, job.pid = process, process.pid
    process_commands.reserve(pool, process, job)
    pool.deadlines.set(pool.refill, pool.now, REFILL_DELAY)


def _grant(pool: Pool, job: Job, data: object) -> None:
    job.waited = pool.now - job.queued_at
    pool.emit(Granted(job.number))


def _count_demand(pool: Pool, job: Job, data: object) -> None:
    pool.demand.claimed(pool.now)


def _announce(pool: Pool, job: Job, data: object) -> None:
    pool.emit(JobAccepted(job.id, job.source, job.launch_type, job.labels, at=pool.wall))


def _void_attempt(pool: Pool, job: Job, data: object) -> None:
    job.attempts -= 1


def _report_retry(pool: Pool, job: Job, process: Process) -> None:
    _report_failed_claim(pool, job, process, is_retried=True)


def _report_failure(pool: Pool, job: Job, process: Process) -> None:
    _report_failed_claim(pool, job, process, is_retried=False)


def _report_failed_claim(pool: Pool, job: Job, process: Process, *, is_retried: bool) -> None:
    ids = (job.id, process.id, process.pid, job.launch_type)
    pool.emit(ClaimFailed(*ids, process.fate, is_retried, job.labels, at=pool.wall))


def _has_started(pool: Pool, job: Job, process: Process) -> None:
    job.started_wall, job.pid, job.metadata = pool.wall, process.pid, b""
    claimed_wall = job.claimed_wall or job.requested_wall
    started = JobStarted(
        job_id=job.id,
        source=job.source,
        process_id=process.id,
        pid=process.pid,
        generation=process.generation.number,
        launch_type=job.launch_type,
        start_seconds=pool.wall - job.requested_wall,
        queue_seconds=job.waited + max(claimed_wall - job.requested_wall, 0.0),
        labels=job.labels,
        app_version=process.facts.version if process.facts is not None else "",
        at=pool.wall,
    )
    pool.emit(HasStarted(job.number))
    pool.emit(started)


# --- actions: the end ----------------------------------------------------------------------------


def _stop(pool: Pool, job: Job, decision: Decision) -> None:
    job.cancelled = job.cancelled or decision
    assert job.process is not None
    process_commands.end(pool, job.process, ProcessEvent.STOP, decision)


def _end_cancelled(pool: Pool, job: Job, decision: Decision) -> None:
    _end_unstarted(pool, job, decision, never_started(job, decision.detail))


def _end_overdue(pool: Pool, job: Job, data: object) -> None:
    message = _not_in_time(job)
    error = job_queue.reject(pool, job, "warming", message, max(pool.demand.refill_seconds, 1.0))
    _end_unstarted(pool, job, Decision("start_timeout", message), error)


def _end_unstarted(pool: Pool, job: Job, decision: Decision, error: GreenroomError) -> None:
    """End a job that has no process and will not get one."""
    job_queue.leave(pool, job)
    job.report = unstarted_report(job, decision, pool.wall)
    pool.emit(NotStarted(job.number, error))
    pool.emit(JobEnded(job.report, job.source, at=pool.wall))
    pool.emit(Over(job.number, job.report))


def _fail_now(pool: Pool, job: Job, process: Process) -> None:
    """Notify the caller that the job will not start. The exit report follows when the process is reaped."""
    text = f"never started: {process.fate}" if process.is_recalled else f"did not start: {process.fate}"
    pool.emit(NotStarted(job.number, LaunchError(f"job {job.id} {text}")))
    job.metadata = b""


def _note_session(pool: Pool, job: Job, report: ExitReport) -> None:
    pool.demand.session_ended((report.timings.ended or 0.0) - (report.timings.started or 0.0))


def _end(pool: Pool, job: Job, report: ExitReport) -> None:
    job_queue.leave(pool, job)
    job.report, job.process = report, None
    pool.emit(JobEnded(report, job.source, at=pool.wall))
    pool.emit(Over(job.number, report))


def _end_without_start(pool: Pool, job: Job, report: ExitReport) -> None:
    pool.emit(NotStarted(job.number, not_started(job, report.detail)))
    _end(pool, job, report)


def _withdraw(pool: Pool, job: Job, error: GreenroomError) -> None:
    _give_up(pool, job, error, is_expired=False)


def _withdraw_cancelled(pool: Pool, job: Job, decision: Decision) -> None:
    _give_up(pool, job, never_started(job, decision.detail), is_expired=False)


def _reject_offer(pool: Pool, job: Job, decision: Decision) -> None:
    """End a reservation that still waits for its first process. In a drain, the reason is ``draining``."""
    is_drained = decision.reason == "drained"
    error = job_queue.draining(pool, job) if is_drained else never_started(job, decision.detail)
    _give_up(pool, job, error, is_expired=False)


def _offer_overdue(pool: Pool, job: Job, data: object) -> None:
    error = job_queue.reject(pool, job, "warming", _not_in_time(job), max(pool.demand.refill_seconds, 1.0))
    _give_up(pool, job, error, is_expired=False)


def _hold_overdue(pool: Pool, job: Job, data: object) -> None:
    timeout = pool.options.reservation_timeout
    message = f"job {job.id} was not launched within reservation_timeout ({timeout:g} s)"
    _give_up(pool, job, LaunchError(message), is_expired=True)


def _give_up(pool: Pool, job: Job, error: GreenroomError, *, is_expired: bool) -> None:
    """End a reservation without a launch. There is no exit report, and the process is idle again."""
    process, job.process = job.process, None
    job.cause = str(error)
    released = Released(
        job_id=job.id,
        source=job.source,
        process_id=process.id if process is not None else None,
        pid=process.pid if process is not None else None,
        generation=process.generation.number if process is not None else None,
        detail=str(error),
        expired=is_expired,
        labels=job.labels,
        at=pool.wall,
    )
    pool.emit(released)
    questions.drop(pool, job)
    job_queue.leave(pool, job)
    pool.emit(NotStarted(job.number, error))
    if process is not None:
        _give_back(pool, process)


def _give_back(pool: Pool, process: Process) -> None:
    """Release a reserved process. If the pool has already decided to end this process, only detach the job from it."""
    if process.state is ProcessState.RESERVED:
        process_commands.release(pool, process)
        if process.generation is not pool.serving:
            process_commands.end(pool, process, ProcessEvent.STOP, Decision("drained", "its code was reloaded"))
    else:
        process.job = None


def _not_in_time(job: Job) -> str:
    return f"no process became warm in time for job {job.id}"


def not_started(job: Job, cause: str) -> LaunchError:
    """Return the error of a job whose process died before an acknowledgement."""
    return LaunchError(f"job {job.id} did not start: {cause}")


def never_started(job: Job, cause: str) -> LaunchError:
    """Return the error of a job that was cancelled before its start."""
    return LaunchError(f"job {job.id} never started: {cause}")


# --- the table -----------------------------------------------------------------------------------

TABLE: dict[S, dict[E, Row]] = {
    S.NEW: {
        E.TAKE: Row(S.STARTING, Bound.NONE, (_claim, _count_demand, _announce)),
        E.QUEUE: Row(S.WAITING, Bound.LAUNCH, (_queue, _count_demand, _announce)),
        E.HOLD: Row(S.HELD, Bound.RESERVATION, (_hold, _grant)),
        E.OFFER: Row(S.OFFERED, Bound.LAUNCH, (_queue,)),
        E.PROMISE: Row(S.UNHELD, Bound.RESERVATION, (_queue, _grant)),
    },
    S.WAITING: {
        E.TAKE: Row(S.STARTING, Bound.NONE, (_claim,)),
        E.OVERDUE: Row(S.ENDED, Bound.NONE, (_end_overdue,)),
        E.CANCEL: Row(S.ENDED, Bound.NONE, (_end_cancelled,)),
        E.CANCEL_UNLESS_ENDING: Row(S.ENDED, Bound.NONE, (_end_cancelled,)),
        **quiet(S.WAITING, E.RELEASE),
    },
    S.OFFERED: {
        E.HOLD: Row(S.HELD, Bound.RESERVATION, (_hold, _grant)),
        E.OVERDUE: Row(S.WITHDRAWN, Bound.NONE, (_offer_overdue,)),
        E.CANCEL: Row(S.WITHDRAWN, Bound.NONE, (_reject_offer,)),
        E.RELEASE: Row(S.WITHDRAWN, Bound.NONE, (_withdraw,)),
    },
    S.HELD: {
        E.LAUNCH: Row(S.STARTING, Bound.NONE, (_claim_held, _count_demand, _announce)),
        E.LOST: Row(S.UNHELD, Bound.KEEP, (_report_retry, _part, _put_back)),
        E.END: Row(S.UNHELD, Bound.KEEP, (_report_retry, _part, _put_back)),
        E.ANSWERED: Row(S.HELD, Bound.RESERVATION),
        E.OVERDUE: Row(S.WITHDRAWN, Bound.NONE, (_hold_overdue,)),
        E.CANCEL: Row(S.WITHDRAWN, Bound.NONE, (_withdraw_cancelled,)),
        E.RELEASE: Row(S.WITHDRAWN, Bound.NONE, (_withdraw,)),
    },
    S.UNHELD: {
        E.HOLD: Row(S.HELD, Bound.KEEP, (_hold,)),
        # No _queue: the job is in the queue already, by the promise, or since its process was lost.
        E.LAUNCH: Row(S.WAITING, Bound.LAUNCH, (_count_demand, _announce)),
        E.ANSWERED: Row(S.UNHELD, Bound.RESERVATION),
        E.OVERDUE: Row(S.WITHDRAWN, Bound.NONE, (_hold_overdue,)),
        E.CANCEL: Row(S.WITHDRAWN, Bound.NONE, (_withdraw_cancelled,)),
        E.RELEASE: Row(S.WITHDRAWN, Bound.NONE, (_withdraw,)),
    },
    S.STARTING: {
        E.STARTED: Row(S.RUNNING, Bound.NONE, (_has_started,)),
        E.UNSENT: Row(S.WAITING, Bound.LAUNCH, (_void_attempt, _put_back)),
        E.LOST: Row(S.WAITING, Bound.LAUNCH, (_report_retry, _put_back)),
        E.LOST_FOR_GOOD: Row(S.FAILED, Bound.NONE, (_report_failure, _fail_now)),
        E.LOST_UNEXPLAINED: Row(S.UNSTARTED, Bound.NONE, (_report_failure,)),
        E.CANCEL: Row(S.RECALLED, Bound.NONE, (_stop,)),
        E.CANCEL_UNLESS_ENDING: Row(S.RECALLED, Bound.NONE, (_stop,)),
        **quiet(S.STARTING, E.END, E.RELEASE),
    },
    S.RECALLED: {
        E.STARTED: Row(S.ENDING, Bound.NONE, (_has_started,)),
        E.LOST: Row(S.FAILED, Bound.NONE, (_fail_now,)),
        **quiet(S.RECALLED, E.CANCEL, E.CANCEL_UNLESS_ENDING, E.END, E.RELEASE),
    },
    S.RUNNING: {
        E.OWN_END: Row(S.DRAINING, Bound.NONE),
        E.END: Row(S.ENDING, Bound.NONE),
        E.LOST: Row(S.ENDING, Bound.NONE),
        E.CANCEL: Row(S.RUNNING, Bound.NONE, (_stop,)),
        E.CANCEL_UNLESS_ENDING: Row(S.RUNNING, Bound.NONE, (_stop,)),
        **quiet(S.RUNNING, E.RELEASE),
    },
    S.DRAINING: {
        E.END: Row(S.ENDING, Bound.NONE),
        E.LOST: Row(S.ENDING, Bound.NONE),
        E.CANCEL: Row(S.DRAINING, Bound.NONE, (_stop,)),
        **quiet(S.DRAINING, E.OWN_END, E.CANCEL_UNLESS_ENDING, E.RELEASE),
    },
    S.ENDING: {
        E.SPARED: Row(S.DRAINING, Bound.NONE),
        E.REPORTED: Row(S.ENDED, Bound.NONE, (_note_session, _end)),
        **quiet(S.ENDING, E.END, E.LOST, E.CANCEL, E.CANCEL_UNLESS_ENDING, E.RELEASE),
    },
    S.UNSTARTED: {
        E.REPORTED: Row(S.ENDED, Bound.NONE, (_end_without_start,)),
        **quiet(S.UNSTARTED, E.CANCEL, E.CANCEL_UNLESS_ENDING, E.RELEASE),
    },
    S.FAILED: {
        E.REPORTED: Row(S.ENDED, Bound.NONE, (_end,)),
        **quiet(S.FAILED, E.CANCEL, E.CANCEL_UNLESS_ENDING, E.RELEASE),
    },
    S.WITHDRAWN: {},
    S.ENDED: {},
}

_BY_ITS_PROCESS = "its process has a deadline"
UNBOUNDED: dict[S, str] = {
    S.NEW: "it changes to another state in the same event",
    S.STARTING: _BY_ITS_PROCESS,
    S.RECALLED: _BY_ITS_PROCESS,
    S.RUNNING: _BY_ITS_PROCESS + ", if job_timeout is set",
    S.DRAINING: _BY_ITS_PROCESS,
    S.ENDING: _BY_ITS_PROCESS,
    S.UNSTARTED: _BY_ITS_PROCESS,
    S.FAILED: _BY_ITS_PROCESS,
    S.WITHDRAWN: "it does not start",
    S.ENDED: "its record is dropped",
}
"""Reasons why states have no deadline of their own."""


# --- requests of callers -------------------------------------------------------------------------


def launch_reserved(pool: Pool, job: Job | None, message: LaunchReserved) -> None:
    """Start the job of a reservation, or reject the launch if the reservation has ended."""
    error = _reason_not_to_launch(job, message)
    if job is None or error is not None:
        pool.emit(Refused(message.number, error or LaunchError("")))
        return
    if message.metadata is not None:
        job.metadata = message.metadata
    job.requested_wall, job.timeout = pool.wall, message.timeout
    job.expires_at = pool.now + message.timeout
    step(pool, job, E.LAUNCH)


def _reason_not_to_launch(job: Job | None, message: LaunchReserved) -> LaunchError | None:
    about = f"job {message.job_id} cannot be started"
    if job is None or job.state not in (S.HELD, S.UNHELD):
        return LaunchError(f"{about}: its process is not reserved any more")
    if job.ask is not None and job.ask.state is not AskState.DONE:
        return LaunchError(f"{about}: the app has not accepted or rejected it yet")
    return None


def ask_app(pool: Pool, job: Job | None, message: AskApp) -> None:
    """Ask the app's request hook about the job of a reservation. A second question is rejected."""
    if job is None or job.state not in (S.HELD, S.UNHELD) or job.ask is not None:
        text = f"job {message.job_id} cannot be offered to the app: it was offered before, or its reservation is over"
        pool.emit(Refused(message.number, GreenroomError(text)))
    else:
        questions.ask(pool, job)


def release(pool: Pool, job: Job, cause: str) -> None:
    """Release the process of a reservation. After the launch, this does nothing."""
    step(pool, job, E.RELEASE, LaunchError(f"job {job.id} was not started: {cause}"))


def cancel(pool: Pool, job: Job, message: Cancel) -> None:
    """Cancel a job or a reservation that is not over. A waiting job never starts.

    With ``unless_ending``, a job that has begun to end by itself goes on. Only the handle of a launched job sends this.
    """
    decision = Decision("cancelled", message.reason, message.unless_ending)
    cancel_for(pool, job, decision)


def cancel_for(pool: Pool, job: Job, decision: Decision) -> None:
    """End a job or a reservation that is not over, for the reason in ``decision``.

    No row is needed for the other states. ``NEW`` lasts no longer than the event that accepts the job. In ``ENDED`` and
    ``WITHDRAWN``, the job is no longer in ``JobQueue.jobs``. ``CANCEL_UNLESS_ENDING`` never meets a reservation, so
    ``OFFERED``, ``HELD`` and ``UNHELD`` have no row for it.
    """
    step(pool, job, E.CANCEL_UNLESS_ENDING if decision.spares_own_end else E.CANCEL, decision)


# --- the machine ---------------------------------------------------------------------------------


def _seconds(pool: Pool, job: Job, bound: Bound) -> float | None:
    if bound is Bound.RESERVATION:
        return pool.options.reservation_timeout
    return max(job.expires_at - pool.now, 0.0)  # Bound.LAUNCH


def _changed(pool: Pool, job: Job, before: S) -> None:
    pass


machine = register(Job, Machine(TABLE, _seconds, _changed, lambda job: f"job {job.id}"))
