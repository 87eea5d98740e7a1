"""Actions of the rows in the table of :mod:`.process`. They run after the change of state, in the order of the row.

Each action gets the pool, the process, and the data of the event. An action changes records and emits effects, which
the shell performs later. So an action itself never touches the process of the operating system.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import AppLoadError
from ...exit_reasons import Reason
from ..events import ProcessEnded, ProcessWarmed
from . import accounts, generation, questions, resident
from .evidence import BECOMING_WARM, take_evidence
from .exit_verdict import Decision
from .process_commands import FORK_TIMEOUT, end
from .records import Job, Pool, Process
from .report_builder import process_report
from .stalls import FULL_DUMP, SHORT_DUMP
from .state_machine import Action, step
from .states import Bound, JobEvent, JobQueueState, JobState, LauncherEvent, LauncherState, ProcessState
from .states import ProcessEvent as E
from .vocabulary import (
    ERROR,
    WARNING,
    CleaningUp,
    CutLifeline,
    Died,
    Dump,
    Dumped,
    Examine,
    Examined,
    Forget,
    Forked,
    ForkFailed,
    Hello,
    Kill,
    Log,
    ReadStatus,
    Reaped,
    Retire,
    Sampled,
    SampleLauncher,
    Shutdown,
    Start,
    Started,
    Stopped,
    Warm,
    WatchMemory,
    WatchStalls,
)

__all__ = [
    "DUMP_TIMEOUT",
    "GIVE_UP_TIMEOUT",
    "KILL_TIMEOUT",
    "MARGIN",
    "REAP_TIMEOUT",
    "abandon",
    "ask_job_to_end",
    "ask_to_exit",
    "born",
    "callbacks_overdue",
    "clean_up_overdue",
    "count_failure",
    "cut_lifeline",
    "death_overdue",
    "decide",
    "decide_overrun",
    "die",
    "dump",
    "examine",
    "finish",
    "finish_alive",
    "finish_traced",
    "has_started",
    "install",
    "job_overdue",
    "judge_launcher",
    "kill",
    "kill_again",
    "learn",
    "look_at_launcher",
    "not_forked",
    "note_overrun",
    "note_stacks",
    "own_end",
    "own_end_overdue",
    "prewarm_left",
    "prewarm_overdue",
    "prove",
    "read_status",
    "replace_parent",
    "seconds",
    "send_start",
    "start_overdue",
    "void_decision",
    "warmed",
    "was_stopped",
    "watch_memory",
    "withdraw",
]

REAP_TIMEOUT = 8.0
"""Seconds from a death until the exit status is known and all descendants of the process are gone.

Without a report in this time, the pool examines the process (``examine``), and waits once more for as long.
"""
DUMP_TIMEOUT = 15.0
"""Seconds to wait for the stacks of a process. The shell ends a dump much sooner, so this is only a safeguard."""
KILL_TIMEOUT = 5.0
"""Seconds to wait for the death after SIGKILL, or of an unfit process. Then SIGKILL is sent, or sent again.

A process in an uninterruptible system call takes longer to die.
"""
GIVE_UP_TIMEOUT = 10.0
"""Seconds from the second SIGKILL until the process is reported as one that cannot be killed."""
MARGIN = 1.0
"""Seconds that a child has to report that it has missed its own deadline."""


# --- actions: the fork ---------------------------------------------------------------------------


def born(pool: Pool, process: Process, forked: Forked) -> None:
    process.pid = forked.pid
    if process.decision is not None:
        process.state_at_end = ProcessState.FORKED  # the decision was made before the report of the fork
    process.fork_seconds = pool.now - process.requested_at
    process.forked_at = pool.now


def watch_memory(pool: Pool, process: Process, data: object) -> None:
    pool.emit(WatchMemory(process.id, process.options))


def not_forked(pool: Pool, process: Process, failed: ForkFailed) -> None:
    if process.decision is None:
        process.decision = Decision("prewarm_failed", f"it could not be forked: {failed.cause}")


def abandon(pool: Pool, process: Process, data: object) -> None:
    process.is_abandoned = True
    if process.decision is None:
        cause = process.launcher.remark or "its zygote was lost"
        process.decision = Decision("prewarm_failed", f"it could not be forked: {cause}")


def cut_lifeline(pool: Pool, process: Process, data: object) -> None:
    process.signal_sent = True
    pool.emit(CutLifeline(process.id))


def look_at_launcher(pool: Pool, process: Process, data: object) -> None:
    pool.emit(SampleLauncher(process.id, process.launcher.number))


def judge_launcher(pool: Pool, process: Process, sampled: Sampled) -> None:
    """Kill a launcher that hangs or is late for too long. Leave a launcher alone if it is busy or gets no CPU."""
    if sampled.sample is None:
        return
    is_over = process.patience.ends_with(sampled.sample)
    if is_over or pool.job_queue.state is JobQueueState.CLOSING:  # a closing pool does not wait for a late fork
        launcher = process.launcher
        launcher.remark = f"its zygote did not fork it in time ({process.patience.finding})"
        text = f"the zygote is killed: it did not fork process {process.id} in time ({process.patience.finding})"
        pool.emit(Log(ERROR, text, {"event": "fork_late", **process.ids}))
        step(pool, launcher, LauncherEvent.KILL)
    elif process.patience.is_starved:
        text = f"the zygote is starved of CPU and has not forked {process.label} yet; it is not killed"
        pool.emit(Log(WARNING, text, {"event": "fork_late", **process.ids}))


# --- actions: becoming warm ----------------------------------------------------------------------


def learn(pool: Pool, process: Process, hello: Hello) -> None:
    """Adopt the facts about the app, which only a spawned process reports itself. The app's settings hold from now on.

    The facts about the app of a forked process come from its zygote.
    """
    if hello.facts is None:
        return
    try:
        generation.learn(pool, process.generation, hello.facts)
    except AppLoadError as error:
        end(pool, process, E.KILL, Decision("prewarm_failed", str(error)))
        return
    process.facts = hello.facts
    before, process.options = process.options, process.generation.options
    if process.options != before:
        pool.emit(WatchMemory(process.id, process.options))
        pool.deadlines.set(process, pool.now, prewarm_left(pool, process))


def warmed(pool: Pool, process: Process, warm: Warm) -> None:
    process.idle_since = pool.now
    refill = pool.now - process.requested_at
    seconds = (process.fork_seconds, warm.prewarm_seconds, refill)
    accounts.became_warm(pool, process, refill)
    number = process.generation.number
    pool.emit(ProcessWarmed(process.id, process.pid, number, *seconds, at=pool.wall))


def prove(pool: Pool, process: Process, data: object) -> None:
    generation.became_idle(pool, process.generation)


def install(pool: Pool, process: Process, data: object) -> None:
    resident.brief(pool, process)
    questions.send_pending(pool, process)


def count_failure(pool: Pool, process: Process, data: object) -> None:
    accounts.failed_to_warm(pool, process)


# --- actions: the job ----------------------------------------------------------------------------


def send_start(pool: Pool, process: Process, job: Job) -> None:
    process.start_was_sent = True
    pool.emit(Start(process.id, job.id, job.metadata))


def has_started(pool: Pool, process: Process, started: Started) -> None:
    assert process.job is not None
    accounts.note_success(pool, process.generation)
    step(pool, process.job, JobEvent.STARTED, process)
    timeout = process.options.stall_timeout
    if timeout is not None:
        pool.emit(WatchStalls(process.id, timeout))


def own_end(pool: Pool, process: Process, data: object) -> None:
    assert process.job is not None
    step(pool, process.job, JobEvent.OWN_END)


def note_overrun(pool: Pool, process: Process, message: CleaningUp) -> None:
    complaint = "its shutdown callbacks did not end in time"
    process.cut = "; ".join(filter(None, [process.cut, complaint]))


def decide_overrun(pool: Pool, process: Process, message: CleaningUp) -> None:
    process.decision = Decision("shutdown_timeout", _too_long(process, "its shutdown callbacks did not end"))


def withdraw(pool: Pool, process: Process, data: object) -> None:
    """Detach the job from a process that the kernel reported as unfit. The job was not sent to this process."""
    job, process.job = process.job, None
    process.start_was_sent = False
    if job is not None:
        step(pool, job, JobEvent.UNSENT, process)


# --- actions: the end ----------------------------------------------------------------------------


def decide(pool: Pool, process: Process, decision: Decision) -> None:
    process.decision = decision


def void_decision(pool: Pool, process: Process, data: object) -> None:
    """Drop the decision to end the process, since the job had begun to end by itself before."""
    process.decision = None
    assert process.job is not None
    step(pool, process.job, JobEvent.SPARED)


def ask_to_exit(pool: Pool, process: Process, data: object) -> None:
    process.was_asked = True
    pool.emit(Retire(process.id))


def ask_job_to_end(pool: Pool, process: Process, data: object) -> None:
    """Ask the job to end."""
    assert process.decision is not None
    decision = process.decision
    process.was_asked = True
    reason = decision.detail if decision.reason == "cancelled" else decision.reason
    pool.emit(Shutdown(process.id, reason, not decision.spares_own_end))


def dump(pool: Pool, process: Process, data: object) -> None:
    process.signal_sent = process.dump_was_asked = True
    pool.emit(Dump(process.id, SHORT_DUMP if process.is_overweight else FULL_DUMP))


def kill(pool: Pool, process: Process, data: object) -> None:
    process.signal_sent = True
    pool.emit(Kill(process.id, process.is_overcrowded))


def kill_again(pool: Pool, process: Process, data: object) -> None:
    text = f"{process.label} still exists {KILL_TIMEOUT:g} s after SIGKILL; SIGKILL is sent again"
    pool.emit(Log(ERROR, text, {"event": "unkillable", **process.ids}))
    pool.emit(Kill(process.id, process.is_overcrowded))


def note_stacks(pool: Pool, process: Process, dumped: Dumped) -> None:
    process.stack_dump = dumped.stacks or process.stack_dump


def _overdue(reason: Reason, complaint: str) -> Action:
    """Return an action that decides to end a process because of a missed deadline."""

    def decide_overdue(pool: Pool, process: Process, data: object) -> None:
        process.decision = Decision(reason, complaint.format(**_figures(process)))

    return decide_overdue


def _figures(process: Process) -> dict[str, object]:
    options = process.options
    return {
        "prewarm": f"{options.prewarm_timeout:g}",
        "start": f"{process.start_seconds:.3g}",
        "job": "" if options.job_timeout is None else f"{options.job_timeout:g}",
        "own_end": f"{_own_end_seconds(process):g}",
        "shutdown": f"{options.shutdown_timeout:g}",
        "cleanup": f"{options.cleanup_timeout:g}",
        "kill": f"{KILL_TIMEOUT:g}",
    }


_IN_TIME = "in time (shutdown_timeout {shutdown} s, cleanup_timeout {cleanup} s)"
prewarm_overdue = _overdue("prewarm_timeout", "it did not become idle within prewarm_timeout ({prewarm} s)")
start_overdue = _overdue("start_timeout", "it did not acknowledge the job within {start} s")
job_overdue = _overdue("job_timeout", "it ran longer than job_timeout ({job} s)")
own_end_overdue = _overdue(
    "shutdown_timeout", "it had begun to end by itself, but its callbacks did not begin within {own_end} s"
)
callbacks_overdue = _overdue("shutdown_timeout", f"its shutdown callbacks did not end {_IN_TIME}")
death_overdue = _overdue("stalled", "it was dying while it was idle, and was not dead within {kill} s")


def clean_up_overdue(pool: Pool, process: Process, data: object) -> None:
    detail = _too_long(process, "its clean-up did not end")
    process.decision = Decision("shutdown_timeout", detail, job_is_over=True)


def was_stopped(pool: Pool, process: Process, stopped: Stopped) -> None:
    when = "while it was resident" if process.is_resident else "before its job had started"
    process.decision = Decision("stalled", f"it was stopped by signal {stopped.signal} {when}")


def _too_long(process: Process, complaint: str) -> str:
    return f"{complaint} {_IN_TIME.format(**_figures(process))}"


# --- actions: after the death --------------------------------------------------------------------


def die(pool: Pool, process: Process, died: Died) -> None:
    """Note the last messages of a dead process, then decide about its job.

    The order matters. Before the death is known, a last ``Warm`` would make a dead process idle. After a last
    ``Started``, the job must not be started again.
    """
    process.has_died = True
    if process.ended_wall is None:
        process.ended_wall = pool.wall
    for word in died.last_words:
        take_evidence(pool, process, word)
    if process.state_at_end in BECOMING_WARM:
        accounts.failed_to_warm(pool, process)
    if process.job is not None:
        _lose_job(pool, process, process.job)
    if not process.launcher.is_parent or process.launcher.state is LauncherState.LOST:
        step(pool, process, E.ORPHANED)


def _lose_job(pool: Pool, process: Process, job: Job) -> None:
    event = JobEvent.LOST
    if job.state is JobState.STARTING and not accounts.may_try_again(pool, process, job):
        event = JobEvent.LOST_FOR_GOOD if process.decision is not None else JobEvent.LOST_UNEXPLAINED
    step(pool, job, event, process)


def read_status(pool: Pool, process: Process, data: object) -> None:
    pool.emit(ReadStatus(process.id))


def examine(pool: Pool, process: Process, data: object) -> None:
    text = f"the exit status of {process.label} is overdue"
    pool.emit(Log(ERROR, text, {"event": "status_overdue", **process.ids}))
    pool.emit(Examine(process.id))


def replace_parent(pool: Pool, process: Process, data: object) -> None:
    """Kill a launcher that has not reported the exit status of its process.

    The supervisor then becomes the parent of the dead process, and reads the status itself.
    """
    if process.launcher.state is not LauncherState.LOST and process.launcher.is_parent:
        process.launcher.remark = f"it did not report the exit of process {process.id}"
        step(pool, process.launcher, LauncherEvent.KILL)


def finish(pool: Pool, process: Process, reaped: object) -> None:
    """Write the report of a process, and drop its record."""
    process.reaped = reaped if isinstance(reaped, Reaped) else None
    if process.reaped is not None and process.reaped.crash_stacks:
        process.stack_dump = process.reaped.crash_stacks
    _file(pool, process)


def finish_traced(pool: Pool, process: Process, examined: Examined) -> None:
    process.remark = "a debugger holds its exit status"
    _file(pool, process)


def finish_alive(pool: Pool, process: Process, data: object) -> None:
    """Report a process that SIGKILL does not end, and drop its record."""
    process.remark = f"it still exists: SIGKILL did not end it within {KILL_TIMEOUT + GIVE_UP_TIMEOUT:g} s"
    process.ended_wall = process.ended_wall or pool.wall
    job = process.job
    text = f"{process.label} cannot be killed; the pool no longer waits for it"
    pool.emit(Log(ERROR, text, {"event": "unkillable", **process.ids}))
    if job is not None:
        step(pool, job, JobEvent.LOST_FOR_GOOD if job.state is JobState.STARTING else JobEvent.LOST, process)
    _file(pool, process)


def _file(pool: Pool, process: Process) -> None:
    del pool.processes[process.id], process.generation.processes[process.id]
    process.launcher.processes.pop(process.id, None)
    report = process_report(process)
    pool.cost.ended(process.id)
    pool.emit(ProcessEnded(report, at=pool.wall))
    pool.emit(Forget(process.id, is_alive=process.pid is not None and not process.has_died))
    job, process.job = process.job, None  # drops the last reference to a large result, without a garbage collection
    process.ended = process.reaped = None
    accounts.ended(pool, process, report, had_job=job is not None)
    if job is not None and job.process is process:
        step(pool, job, JobEvent.REPORTED, report)
    generation.process_ended(pool, process.generation, process, report)
    pool.is_unbalanced = True


def prewarm_left(pool: Pool, process: Process) -> float:
    spent = pool.now - process.forked_at if process.forked_at else 0.0
    return max(process.options.prewarm_timeout - spent, 0.0)


def _start_seconds(pool: Pool, process: Process) -> float:
    assert process.job is not None
    process.start_seconds = accounts.start_seconds(pool, process.job)
    return process.start_seconds


def _own_end_seconds(process: Process) -> float:
    # The app's facts were reported before the process had a job. A job must not extend its own deadline.
    return (process.facts.end_timeout if process.facts is not None else 0.0) + process.options.shutdown_timeout


_SECONDS: dict[Bound, Callable[[Pool, Process], float | None]] = {
    Bound.FORK: lambda pool, process: FORK_TIMEOUT / 2,
    Bound.PREWARM: prewarm_left,
    Bound.START: _start_seconds,
    Bound.JOB: lambda pool, process: process.options.job_timeout,
    Bound.OWN_END: lambda pool, process: _own_end_seconds(process) + MARGIN,
    Bound.SHUTDOWN: lambda pool, process: process.options.shutdown_timeout,
    Bound.CALLBACKS: lambda pool, process: process.options.shutdown_timeout + MARGIN,
    Bound.CLEANUP: lambda pool, process: process.options.cleanup_timeout,
    Bound.DUMP: lambda pool, process: DUMP_TIMEOUT,
    Bound.KILL: lambda pool, process: KILL_TIMEOUT,
    Bound.GIVE_UP: lambda pool, process: GIVE_UP_TIMEOUT,
    Bound.REAP: lambda pool, process: REAP_TIMEOUT,
}


def seconds(pool: Pool, process: Process, bound: Bound) -> float | None:
    return _SECONDS[bound](pool, process)
