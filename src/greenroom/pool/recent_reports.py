"""The latest reports of a pool, bounded in number and in text.

A report quotes an exception, a traceback and stacks. Each of these texts has up to 32,000 or 65,536 characters. A
thousand reports with such texts would take hundreds of MiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from ..clean_text import cut_end, cut_start
from ..errors import ErrorInfo
from ..exit_report import ExitReport

__all__ = ["MOST_TEXT", "KeptReports", "shortened", "text_size"]

MOST_REPORTS = 1000
MOST_TEXT = 16 * 1024 * 1024
"""Limit of characters in all whole reports. Above this limit, the oldest reports are shortened."""
SHORT = 1000
"""Limit of characters in each text of a shortened report."""


def text_size(report: ExitReport) -> int:
    """Return the number of characters in those texts of a report that can be long."""
    error = report.error
    quoted = 0 if error is None else len(error.message) + len(error.traceback)
    return quoted + len(report.stack_dump or "") + len(report.detail)


def shortened(report: ExitReport) -> ExitReport:
    """Return a copy of a report in which each long text is cut, with a mark."""
    error, dump = report.error, report.stack_dump
    if error is not None:
        error = ErrorInfo(error.type, cut_end(error.message, SHORT), cut_start(error.traceback, SHORT))
    dump = None if dump is None else cut_end(dump, SHORT)
    return replace(report, error=error, stack_dump=dump, detail=cut_end(report.detail, SHORT))


class KeptReports:
    """Latest reports without their results, oldest first."""

    def __init__(self, most: int = MOST_REPORTS, most_text: int = MOST_TEXT) -> None:
        self._most_text = most_text
        self._most = most
        self._whole: deque[ExitReport] = deque()
        self._short: deque[ExitReport] = deque()
        """Shortened reports. All of them are older than the whole reports."""
        self._text = 0

    def __iter__(self) -> Iterator[ExitReport]:
        yield from self._short
        yield from self._whole

    def add(self, report: ExitReport) -> None:
        """Keep a report, without its result."""
        self._whole.append(replace(report, result_payload=None))
        self._text += text_size(report)
        while self._text > self._most_text and self._whole:
            oldest = self._whole.popleft()
            self._text -= text_size(oldest)
            self._short.append(shortened(oldest))
        if len(self._short) + len(self._whole) > self._most:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        if self._short:
            self._short.popleft()
        else:
            self._text -= text_size(self._whole.popleft())
