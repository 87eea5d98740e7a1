"""The log line of a process's end."""

from __future__ import annotations

import logging
from typing import Any

from ..clean_text import cut_end, cut_start
from ..code_place import Place, place_fields, place_in_stacks, place_in_traceback
from ..exit_reasons import is_expected
from ..exit_report import ExitReport
from ..log_fields import log_fields

__all__ = ["log_end"]

_logger = logging.getLogger("greenroom")

_LONGEST_DETAIL = 1000
"""Limit of characters in a detail, which may quote an exception. The report has the whole detail."""


_LONGEST_STACK = 16_000
"""Limit of characters in a traceback, and in the stacks. The end of a traceback says where the app raised."""


def log_end(report: ExitReport) -> None:
    """Log the end of a process. An end that needs attention is a warning."""
    is_ordinary = is_expected(report.outcome, report.reason, had_job=report.job_id is not None)
    level = logging.INFO if is_ordinary else logging.WARNING
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
        "detail": cut_end(report.detail, _LONGEST_DETAIL),
        **place_fields(_place_of(report)),
        "traceback": None if report.error is None else cut_start(report.error.traceback, _LONGEST_STACK) or None,
        "stack": None if report.stack_dump is None else cut_end(report.stack_dump, _LONGEST_STACK),
        "exit_code": report.exit_code,
        "signal": report.signal,
        "run_seconds": round((times.ended or 0.0) - (times.started or 0.0), 3) if has_run else None,
        "peak_memory_mb": report.peak_memory_mb,
        "cpu_seconds": report.cpu_seconds,
        "log_records_dropped": report.log_records_dropped or None,
    }


def _place_of(report: ExitReport) -> Place | None:
    """Return the line of the app that raised an exception, or at which the process stood before its end."""
    place = None if report.error is None else place_in_traceback(report.error.traceback)
    return place or (None if report.stack_dump is None else place_in_stacks(report.stack_dump))
