"""Exit reports, made from the record of a process or a job at its end."""

from __future__ import annotations

from ...exit_report import ExitReport, Timings
from .exit_verdict import Decision, Evidence, ExitStatus, Verdict, judge
from .records import Job, Process

__all__ = ["process_report", "unstarted_report"]


def process_report(process: Process) -> ExitReport:
    """Return the exit report of a process. A field without a known value is ``None``."""
    job, reaped = process.job, process.reaped
    verdict = judge(_evidence(process))
    status = reaped.status if reaped is not None else ExitStatus(None, None)
    ended = process.ended
    return ExitReport(
        outcome=verdict.outcome,
        reason=verdict.reason,
        detail=_detail(process, verdict),
        timings=_timings(process),
        job_id=job.id if job is not None else None,
        process_id=process.id,
        pid=process.pid,
        generation=process.generation.number,
        launch_type=job.launch_type if job is not None else None,
        exit_code=status.exit_code,
        signal=status.signal,
        error=process.error,
        stack_dump=process.stack_dump,
        peak_memory_mb=reaped.peak_memory_mb if reaped is not None else None,
        cpu_seconds=reaped.cpu_seconds if reaped is not None else None,
        log_records_dropped=reaped.dropped if reaped is not None else 0,
        descendants_killed=reaped.descendants_killed if reaped is not None else 0,
        labels=job.labels if job is not None else {},
        result_payload=ended.result if ended is not None and ended.how == "completed" else None,
    )


def unstarted_report(job: Job, decision: Decision, ended_wall: float) -> ExitReport:
    """Return the exit report of a job that ended without a process."""
    return ExitReport(
        outcome="cancelled" if decision.reason in ("cancelled", "drained") else "failed",
        reason=decision.reason,
        detail=decision.detail,
        timings=Timings(requested=job.requested_wall, ended=ended_wall),
        job_id=job.id,
        launch_type=job.launch_type,
        labels=job.labels,
    )


def _detail(process: Process, verdict: Verdict) -> str:
    return "; ".join(filter(None, (verdict.detail, process.cut, process.remark)))


def _evidence(process: Process) -> Evidence:
    reaped, ended, decision = process.reaped, process.ended, process.decision
    signal_sent = process.signal_sent
    if decision is None and reaped is not None and reaped.limit_was_hit:
        # The kernel sent SIGKILL for the supervisor, which had set the limit.
        decision = Decision("memory_limit", "the kernel ended it at the memory limit of its cgroup")
        signal_sent = True
    return Evidence(
        status=reaped.status if reaped is not None else ExitStatus(None, None),
        state_at_death=process.state_at_end.public,
        decision=decision,
        signal_sent=signal_sent,
        ended=ended.how if ended is not None else None,
        end_was_asked=ended.told if ended is not None else False,
        error=process.error,
        oom_killed=reaped.oom_killed if reaped is not None and not signal_sent else False,
        dump_was_asked=process.dump_was_asked,
        was_asked=process.was_asked,
    )


def _timings(process: Process) -> Timings:
    job = process.job
    if job is None:
        return Timings(requested=process.requested_wall, ended=process.ended_wall)
    return Timings(
        requested=job.requested_wall,
        claimed=job.claimed_wall,
        started=job.started_wall,
        ended=process.ended_wall,
    )
