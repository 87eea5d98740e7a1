"""What a job's end means: to the server, and for a restart. Pure."""

from __future__ import annotations

from ....report import ExitReport
from ....settings.livekit import LiveKitOptions
from .protocol import JobStatus

__all__ = ["is_crash", "may_restart", "status_of"]

_MEANT = frozenset({"completed", "cancelled", "drained", "job_timeout", "shutdown_timeout"})
"""Ends that somebody wanted, or that a limit was set for: to start the job again would undo that."""


def status_of(report: ExitReport) -> tuple[JobStatus, str]:
    """As the server is told. The agent in the room is gone in any case; this is for whoever looks for the cause."""
    was_wanted = report.outcome == "cancelled" and report.reason != "drained"
    if report.outcome == "succeeded" or was_wanted:
        return "success", ""
    return "failed", f"{report.reason}: {report.detail}"


def is_crash(report: ExitReport) -> bool:
    """Whether the job ended by what nobody wanted. An exception that it raised is such a thing, too."""
    return report.outcome in ("failed", "killed") and report.reason not in _MEANT


def may_restart(options: LiveKitOptions, report: ExitReport, restarts: int) -> bool:
    """``restarts``: how often it was started again so far."""
    return options.livekit_restart != "never" and is_crash(report) and restarts < options.livekit_max_restarts
