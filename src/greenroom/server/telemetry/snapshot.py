"""Snapshot of a worker for the status page, ``top`` and ``/pressure``, made of the pool's events.

All data comes from events, so that the page, the metrics and the log agree.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from ...exit_reasons import is_expected
from ...exit_report import ExitReport
from ...pool import ProcessPool
from ...pool.events import (
    BreakerChanged,
    Draining,
    Event,
    JobStarted,
    MemorySampled,
    ProcessChanged,
    ProcessEnded,
    Reloaded,
    ReloadFailed,
    SourceChanged,
    TurnedDown,
    ZygoteLost,
)
from ..history.failures import Failures, cause_of

__all__ = ["RECENT_SECONDS", "Snapshot", "incident_of", "report_brief"]

RECENT_SECONDS = 60.0
"""Seconds for which a rejection is recent."""
KEPT_TURNED_DOWN = 400
KEPT_INCIDENTS = 100
KEPT_LATENCIES = 2000


class Snapshot:
    """Snapshot of a pool in plain data, which follows the pool's events and keeps the latest of everything.

    ``metadata_of`` returns the shown metadata of a rejected job.
    """

    def __init__(self, pool: ProcessPool, metadata_of: Callable[[str], Any]) -> None:
        self.metadata_of = metadata_of
        """Function that returns what operators may see of the metadata of a job, by its id."""
        self.processes: dict[str, dict[str, Any]] = {}
        self.turned_down: deque[dict[str, Any]] = deque(maxlen=KEPT_TURNED_DOWN)
        self.turned_down_total: Counter[str] = Counter()
        self.failures = Failures()
        """Reports of processes that did not end as expected."""
        self.incidents: deque[dict[str, Any]] = deque(maxlen=KEPT_INCIDENTS)
        """Events that concern the whole worker: see :func:`incident_of`."""
        self.start_ms: deque[tuple[str, float]] = deque(maxlen=KEPT_LATENCIES)
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            ProcessChanged: self._on_change,
            ProcessEnded: self._on_process_end,
            MemorySampled: self._on_memory,
            JobStarted: self._on_started,
            TurnedDown: self._on_turned_down,
        }
        pool.subscribe(self._on_event)

    def recently_turned_down(self, now: float) -> Counter[str]:
        """Return the kept rejections of the last :data:`RECENT_SECONDS`, counted by reason."""
        return Counter(item["reason"] for item in self.turned_down if item["at"] > now - RECENT_SECONDS)

    def states(self) -> Counter[str]:
        """Return the number of processes in each state."""
        return Counter(process["state"] for process in self.processes.values())

    def running(self) -> dict[str, int]:
        """Return the pid of each process that runs a job, by the process's id."""
        found = self.processes.values()
        return {each["id"]: each["pid"] for each in found if each["state"] == "running" and each["pid"] is not None}

    # --- events ----------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        incident = incident_of(event)
        if incident is not None:
            self.incidents.append(incident)

    def _on_change(self, event: ProcessChanged) -> None:
        process = self.processes.setdefault(event.process_id, {"id": event.process_id, "private_mb": None})
        process |= {
            "pid": event.pid,
            "state": event.after,
            "generation": event.generation,
            "job_id": event.job_id,
            "since": event.at,
        }

    def _on_memory(self, event: MemorySampled) -> None:
        process = self.processes.get(event.process_id)
        if process is not None:
            process["private_mb"] = event.private_mb

    def _on_process_end(self, event: ProcessEnded) -> None:
        report = event.report
        self.processes.pop(report.process_id or "", None)
        if not is_expected(report.outcome, report.reason, had_job=report.job_id is not None):
            self.failures.add(report_brief(report), event.at)

    def _on_started(self, event: JobStarted) -> None:
        self.start_ms.append((event.launch_type, round(event.start_seconds * 1000, 3)))

    def _on_turned_down(self, event: TurnedDown) -> None:
        self.turned_down_total[event.reason] += 1
        shown = {"at": event.at, "job_id": event.job_id, "source": event.source, "labels": dict(event.labels)}
        shown["metadata"] = self.metadata_of(event.job_id)
        self.turned_down.append(shown | {"reason": event.reason, "detail": event.detail})


def incident_of(event: Event) -> dict[str, Any] | None:
    """Return an event that concerns the whole worker as plain data: time, kind, cause, and whether it needs attention.

    Return ``None`` for any other event.
    """
    found: tuple[str, str, bool] | None = None
    match event:
        case ReloadFailed(cause=cause):
            found = ("reload failed", f"{cause}; the old code goes on serving", True)
        case Reloaded(generation=generation):
            found = ("reloaded", f"generation {generation} serves", False)
        case ZygoteLost(pid=pid, cause=cause):
            found = ("zygote lost", f"zygote {pid}: {cause}; its jobs go on", True)
        case BreakerChanged(is_open=True, cause=cause):
            found = ("breaker open", cause or "processes do not become warm", True)
        case BreakerChanged():
            found = ("breaker closed", "processes become warm again", False)
        case Draining(timeout=timeout):
            found = ("draining", f"jobs may go on for {timeout:g} s", False)
        case SourceChanged(source=source, state=state, detail=detail):
            found = (f"{source} {state}", detail, False)
    if found is None:
        return None
    kind, cause, is_bad = found
    return {"at": event.at, "kind": kind, "cause": cause, "is_bad": is_bad}


def report_brief(report: ExitReport) -> dict[str, Any]:
    """Return a report as plain data, without its result."""
    return {
        "job_id": report.job_id,
        "labels": dict(report.labels),
        "process_id": report.process_id,
        "pid": report.pid,
        "generation": report.generation,
        "outcome": report.outcome,
        "reason": report.reason,
        "cause": cause_of(report),
        "detail": report.detail,
        "exit_code": report.exit_code,
        "signal": report.signal,
        "error": None if report.error is None else str(report.error),
        "traceback": None if report.error is None else report.error.traceback or None,
        "stack_dump": report.stack_dump,
        "peak_memory_mb": report.peak_memory_mb,
        "cpu_seconds": report.cpu_seconds,
    }
