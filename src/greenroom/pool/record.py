"""What becomes known of one process's end, piece by piece, until the report can be written."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..errors import ErrorInfo
from ..report import ExitReport, Timings
from ..wire import messages as m
from .clock import wall_time
from .exits import Decision, Evidence, ExitStatus, judge
from .launch import Launch
from .states import State

__all__ = ["Record"]


@dataclass(slots=True)
class Record:
    """Filled in by :class:`~greenroom.pool.process.Process` as it learns things."""

    requested_at: float
    decision: Decision | None = None
    state_at_end: State = State.REQUESTED
    """What it was doing when it died, or when its end was decided."""
    signal_sent: bool = False
    """This process has sent SIGKILL."""
    ended: m.Ended | None = None
    ended_at: float | None = None
    result: bytes | None = None
    error: ErrorInfo | None = None
    stack_dump: str | None = None
    cut: str = ""
    """What the job could not bring to its end, beside what the verdict tells."""
    status: ExitStatus | None = None
    usage: m.Reaped | None = None
    oom_killed: bool = False
    dropped: int = 0

    def job_ended(self, message: m.Ended, result: bytes) -> None:
        self.ended, self.error, self.ended_at = message, message.error, time.monotonic()
        self.result = result if message.how == "completed" else None

    def has_died(self) -> None:
        if self.ended_at is None:
            self.ended_at = time.monotonic()

    @property
    def is_complete(self) -> bool:
        return self.status is not None and self.usage is not None

    def report(self, process_id: str, pid: int | None, generation: int, launch: Launch | None) -> ExitReport:
        """The report; what could not be found out is ``None`` in it."""
        verdict = judge(self._evidence())
        status = self.status or ExitStatus(None, None)
        usage = self.usage
        return ExitReport(
            outcome=verdict.outcome,
            reason=verdict.reason,
            detail=f"{verdict.detail}; {self.cut}" if self.cut else verdict.detail,
            timings=self._timings(launch),
            job_id=launch.job_id if launch else None,
            process_id=process_id,
            pid=pid,
            generation=generation,
            launch_type=launch.launch_type if launch else None,
            exit_code=status.exit_code,
            signal=status.signal,
            error=self.error,
            stack_dump=self.stack_dump,
            peak_memory_mb=usage.peak_memory_mb if usage else None,
            cpu_seconds=usage.cpu_seconds if usage else None,
            log_records_dropped=self.dropped,
            descendants_killed=usage.descendants_killed if usage else 0,
            labels=launch.labels if launch else {},
            result_payload=self.result,
        )

    def _evidence(self) -> Evidence:
        return Evidence(
            status=self.status or ExitStatus(None, None),
            state_at_death=self.state_at_end.public,
            decision=self.decision,
            signal_sent=self.signal_sent,
            ended=self.ended.how if self.ended else None,
            told=self.ended.told if self.ended else False,
            error=self.error,
            oom_killed=self.oom_killed,
        )

    def _timings(self, launch: Launch | None) -> Timings:
        ended = wall_time(self.ended_at if self.ended_at is not None else time.monotonic())
        if launch is None:
            return Timings(requested=wall_time(self.requested_at), ended=ended)
        claimed, started = launch.claimed_at, launch.started_at
        return Timings(
            requested=wall_time(launch.requested_at),
            claimed=None if claimed is None else wall_time(claimed),
            started=None if started is None else wall_time(started),
            ended=ended,
        )
