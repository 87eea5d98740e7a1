"""Ends that need attention, grouped by their cause, so that a storm of one kind hides no other."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ...code_place import place_in_traceback
from ...exit_report import ExitReport
from ...signal_names import signal_name

__all__ = ["Failures", "cause_of"]

KEPT_CAUSES = 40
"""Causes that are kept. Above this, the one whose last report is the oldest is dropped."""
KEPT_REPORTS = 100
"""Reports that are kept of all causes together. Above this, the cause with the most reports loses its oldest."""


def cause_of(report: ExitReport) -> str:
    """Return what reports of one kind have in common, such as ``failed, raised: KeyError at agent.py:12``. Pure."""
    text = f"{report.outcome}, {report.reason}"
    if report.error is not None:
        place = place_in_traceback(report.error.traceback)
        where = f" at {PurePath(place.file).name}:{place.line}" if place else ""
        return f"{text}: {report.error.type}{where}"
    if report.signal is not None and report.reason == "signaled":
        return f"{text}: {signal_name(report.signal)}"
    return text


@dataclass(slots=True)
class _Cause:
    """Reports of one cause: their number, the times of the first and the last, and the latest of them."""

    first: float
    count: int = 0
    last: float = 0.0
    latest: deque[dict[str, Any]] = field(default_factory=deque)


class Failures:
    """Latest reports of each cause."""

    def __init__(self) -> None:
        self._causes: OrderedDict[str, _Cause] = OrderedDict()

    def add(self, report: dict[str, Any], at: float) -> None:
        """Keep a report, as plain data with its ``cause``."""
        cause = self._causes.setdefault(report["cause"], _Cause(first=at))
        self._causes.move_to_end(report["cause"])
        cause.count, cause.last = cause.count + 1, at
        cause.latest.append(report | {"at": at})
        if len(self._causes) > KEPT_CAUSES:
            self._causes.popitem(last=False)
        if sum(len(one.latest) for one in self._causes.values()) > KEPT_REPORTS:
            max(self._causes.values(), key=lambda one: len(one.latest)).latest.popleft()

    def reports(self) -> list[dict[str, Any]]:
        """Return the kept reports, oldest first."""
        found = [report for cause in self._causes.values() for report in cause.latest]
        return sorted(found, key=lambda report: report["at"])

    def causes(self) -> list[dict[str, Any]]:
        """Return each cause with its count, and the times of its first and last report. The latest one is last."""
        found = self._causes.items()
        return [{"cause": text, "count": one.count, "first": one.first, "last": one.last} for text, one in found]
