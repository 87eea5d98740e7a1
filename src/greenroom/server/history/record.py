"""Record of one job, from its offer to its end and afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...exit_report import ExitReport
from .figures import Figures
from .job_traces import JobTrace
from .lines import Lines

__all__ = ["Record", "Step"]

MOST_STEPS = 50
STUCK_AFTER = 1.5
"""Seconds without a beat of the event loop, which beats every second, from which on a job counts as stuck."""


class Step(NamedTuple):
    """Event in the life of a job."""

    at: float
    what: str
    detail: str = ""


@dataclass(eq=False, slots=True)
class Record:
    """Record of one job. Times are seconds since the epoch."""

    id: str
    source: str
    labels: dict[str, str]
    at: float
    """Time of the offer."""
    accepted: float | None = None
    metadata: Any = None
    """Part of the metadata that operators may see."""
    fields: dict[str, str] = field(default_factory=dict)
    """Names and texts by which the job can be found, in small letters: its labels, and its metadata."""
    text: str = ""
    """All these texts and the id, one in each line."""
    launch_type: str | None = None
    generation: int | None = None
    app_version: str | None = None
    trace: JobTrace | None = None
    """Trace of the job; ``None`` if jobs are not traced."""
    process_id: str | None = None
    pid: int | None = None
    started: float | None = None
    start_ms: float | None = None
    ended: float | None = None
    steps: list[Step] = field(default_factory=list)
    events: int = 0
    """Number of steps so far, those that are not kept among them."""
    lines: Lines = field(default_factory=Lines)
    figures: Figures = field(default_factory=Figures)
    beat_at: float | None = None
    """Time of the latest known beat of the event loop, while the job runs."""
    cause: str | None = None
    """What the end has in common with others of its kind; ``None`` before the end."""
    report: ExitReport | None = None
    """Report without its result; ``None`` before the end."""

    def set_fields(self, fields: dict[str, str]) -> None:
        """Set the names and texts by which the job can be found."""
        self.fields = {name.casefold(): text.casefold() for name, text in fields.items()}
        self.text = "\n".join([self.id.casefold(), *self.fields.values()])

    def add_step(self, at: float, what: str, detail: str = "") -> None:
        self.events += 1
        if len(self.steps) < MOST_STEPS:
            self.steps.append(Step(at, what, detail))

    @property
    def state(self) -> str:
        if self.ended is not None:
            return "ended"
        return "waiting" if self.started is None else "running"

    def beat_age(self, now: float) -> float | None:
        """Return the seconds since the latest beat; ``None`` before the first beat and after the end."""
        if self.beat_at is None or self.ended is not None:
            return None
        return max(now - self.beat_at, 0.0)

    def is_stuck(self, now: float) -> bool:
        age = self.beat_age(now)
        return age is not None and age > STUCK_AFTER

    def brief(self, now: float) -> dict[str, Any]:
        """Return the record as plain data for a list of jobs."""
        report = self.report
        return {
            "id": self.id,
            "source": self.source,
            "labels": self.labels,
            "metadata": self.metadata,
            "launch_type": self.launch_type,
            "generation": self.generation,
            "app_version": self.app_version,
            "trace_id": None if self.trace is None else self.trace.trace_id,
            "process_id": self.process_id,
            "pid": self.pid,
            "accepted": self.accepted,
            "started": self.started,
            "start_ms": self.start_ms,
            "ended": self.ended,
            **self.figures_now(now),
            "outcome": None if report is None else report.outcome,
            "reason": None if report is None else report.reason,
            "detail": None if report is None else report.detail,
            "cause": self.cause,
        }

    def figures_now(self, now: float) -> dict[str, Any]:
        """Return the latest figures of the job as plain data."""
        latest, age = self.figures.latest, self.beat_age(now)
        return {
            "memory_mb": None if latest is None or latest.memory_mb is None else round(latest.memory_mb, 1),
            "cpu_seconds": None if latest is None else round(latest.cpu_seconds, 2),
            "loop_lag": None if latest is None or latest.lag is None else round(latest.lag, 3),
            "beat_age": None if age is None else round(age, 2),
            "is_stuck": self.is_stuck(now),
        }

    def size(self) -> int:
        """Return the characters of the record's texts, roughly: what bounds the memory of all records."""
        texts = sum(len(name) + len(text) for name, text in self.fields.items())
        report = self.report
        if report is not None:
            texts += len(report.detail) + len(report.stack_dump or "")
            texts += 0 if report.error is None else len(report.error.traceback) + len(report.error.message)
        # Objects count, too: about 250 bytes for a line, and 200 for a sample.
        lines, samples = self.lines.count - self.lines.left_out, len(self.figures.all())
        return 2000 + 3 * texts + self.lines.size + 250 * lines + 200 * samples
