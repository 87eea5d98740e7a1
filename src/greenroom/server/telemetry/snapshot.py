"""Snapshot of a worker for the status page, ``top`` and ``/pressure``, made of the pool's events.

All data comes from events, so that the page, the metrics and the log agree.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any

from ...exit_reasons import EXPECTED_ENDS
from ...exit_report import ExitReport
from ...pool import ProcessPool
from ...pool.events import (
    Event,
    JobAccepted,
    JobEnded,
    JobStarted,
    MemorySampled,
    ProcessChanged,
    ProcessEnded,
    TurnedDown,
)

__all__ = ["RECENT_SECONDS", "Snapshot"]

RECENT_SECONDS = 60.0
"""Seconds for which a rejection is recent."""
KEPT_SESSIONS = 400
KEPT_TURNED_DOWN = 400
KEPT_REPORTS = 100
KEPT_LATENCIES = 2000


class Snapshot:
    """Snapshot of a pool in plain data, which follows the pool's events and keeps the latest of everything."""

    def __init__(self, pool: ProcessPool) -> None:
        self.processes: dict[str, dict[str, Any]] = {}
        self.sessions: OrderedDict[str, dict[str, Any]] = OrderedDict()
        """Jobs by id, oldest first: live jobs, and the latest jobs that ended."""
        self.turned_down: deque[dict[str, Any]] = deque(maxlen=KEPT_TURNED_DOWN)
        self.turned_down_total: Counter[str] = Counter()
        self.reports: deque[dict[str, Any]] = deque(maxlen=KEPT_REPORTS)
        """Reports of processes that did not end as expected."""
        self.start_ms: deque[tuple[str, float]] = deque(maxlen=KEPT_LATENCIES)
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            ProcessChanged: self._on_change,
            ProcessEnded: self._on_process_end,
            MemorySampled: self._on_memory,
            JobAccepted: self._on_accepted,
            JobStarted: self._on_started,
            JobEnded: self._on_job_end,
            TurnedDown: self._on_turned_down,
        }
        pool.subscribe(self._on_event)

    def recently_turned_down(self, now: float) -> Counter[str]:
        """Return the kept rejections of the last :data:`RECENT_SECONDS`, counted by reason."""
        return Counter(item["reason"] for item in self.turned_down if item["at"] > now - RECENT_SECONDS)

    def states(self) -> Counter[str]:
        """Return the number of processes in each state."""
        return Counter(process["state"] for process in self.processes.values())

    # --- events ----------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

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
        if report.reason not in EXPECTED_ENDS:
            self.reports.append(report_brief(report) | {"at": event.at})

    def _on_accepted(self, event: JobAccepted) -> None:
        self.sessions[event.job_id] = {
            "id": event.job_id,
            "source": event.source,
            "labels": dict(event.labels),
            "launch_type": event.launch_type,
            "accepted": event.at,
            "started": None,
            "ended": None,
            "start_ms": None,
            "pid": None,
            "process_id": None,
            "outcome": None,
            "reason": None,
            "detail": None,
        }
        self._forget_old_sessions()

    def _forget_old_sessions(self) -> None:
        surplus = len(self.sessions) - KEPT_SESSIONS
        if surplus > 0:
            ended = [job_id for job_id, session in self.sessions.items() if session["ended"] is not None]
            for job_id in ended[:surplus]:
                del self.sessions[job_id]

    def _on_started(self, event: JobStarted) -> None:
        start_ms = round(event.start_seconds * 1000, 3)
        self.start_ms.append((event.launch_type, start_ms))
        session = self.sessions.get(event.job_id)
        if session is not None:
            session |= {
                "started": event.at,
                "start_ms": start_ms,
                "launch_type": event.launch_type,
                "pid": event.pid,
                "process_id": event.process_id,
            }

    def _on_job_end(self, event: JobEnded) -> None:
        report = event.report
        session = self.sessions.get(report.job_id or "")
        if session is not None:
            session |= {
                "ended": report.timings.ended or event.at,
                "outcome": report.outcome,
                "reason": report.reason,
                "detail": report.detail,
            }

    def _on_turned_down(self, event: TurnedDown) -> None:
        self.turned_down_total[event.reason] += 1
        shown = {"at": event.at, "job_id": event.job_id, "source": event.source, "labels": dict(event.labels)}
        self.turned_down.append(shown | {"reason": event.reason, "detail": event.detail})


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
        "detail": report.detail,
        "exit_code": report.exit_code,
        "signal": report.signal,
        "error": None if report.error is None else str(report.error),
        "traceback": None if report.error is None else report.error.traceback or None,
        "stack_dump": report.stack_dump,
        "peak_memory_mb": report.peak_memory_mb,
        "cpu_seconds": report.cpu_seconds,
    }
