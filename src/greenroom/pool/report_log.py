"""The log line of a process's end."""

from __future__ import annotations

import logging
from typing import Any

from ..clean_text import cut_end
from ..exit_report import ExitReport
from ..log_fields import log_fields

__all__ = ["log_end"]

_logger = logging.getLogger("greenroom")

_LONGEST_DETAIL = 1000
"""Limit of characters in a detail, which may quote an exception. The report has the whole detail."""


def log_end(report: ExitReport) -> None:
    """Log the end of a process."""
    level = logging.INFO if report.outcome in ("succeeded", "cancelled") else logging.WARNING
    detail = cut_end(report.detail, _LONGEST_DETAIL)
    if report.log_records_dropped:
        detail += f"; {report.log_records_dropped} lines of its log were dropped or cut"
    text = "%s %s: %s (%s)"
    extra = log_fields("process_ended", **_fields_of(report))
    _logger.log(level, text, _label(report), report.outcome, report.reason, detail, extra=extra)


def _label(report: ExitReport) -> str:
    job = f" (job {report.job_id})" if report.job_id is not None else ""
    return f"process {report.process_id} pid {report.pid}{job}"


def _fields_of(report: ExitReport) -> dict[str, Any]:
    """Return the fields of the log line of a process's end."""
    times = report.timings
    has_run = times.started is not None and times.ended is not None
    return {
        "process_id": report.process_id,
        "job_pid": report.pid,
        "job_id": report.job_id,
        "labels": report.labels or None,
        "generation": report.generation,
        "outcome": report.outcome,
        "reason": report.reason,
        "exit_code": report.exit_code,
        "signal": report.signal,
        "run_seconds": round((times.ended or 0.0) - (times.started or 0.0), 3) if has_run else None,
        "peak_memory_mb": report.peak_memory_mb,
        "cpu_seconds": report.cpu_seconds,
        "log_records_dropped": report.log_records_dropped or None,
    }
