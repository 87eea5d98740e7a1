"""Rows of errors, settings and reports: the parts of them that a recording keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from ...app_facts import AppSetting, unpacked
from ...clean_text import cut_end
from ...errors import AppLoadError, ErrorInfo, GreenroomError, NoCapacity
from ...exit_report import ExitReport
from ..core.effective_options import APP_OPTIONS

__all__ = ["REPORT", "error_row", "kept_settings", "load_error_row", "raised_row", "report_row", "short"]

LONGEST = 256
"""Most characters of a text that is kept."""


def short(text: str) -> str:
    """Return a text, cut to :data:`LONGEST` characters."""
    return cut_end(text, LONGEST)


def error_row(error: ErrorInfo | None) -> Any:
    return None if error is None else (error.type, len(error.message), len(error.traceback))


def raised_row(error: GreenroomError | None) -> Any:
    if error is None:
        return None
    return type(error).__name__, error.reason if isinstance(error, NoCapacity) else None


def load_error_row(error: AppLoadError | None) -> Any:
    return None if error is None else (type(error).__name__, len(str(error)))


def kept_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pool options that an app sets. Other settings can be secrets, and the core decides nothing by them.

    The core rejects all settings of an app if one has an unknown form. So a setting with such a form is kept as
    ``None``.
    """
    kept: dict[str, Any] = {}
    for name, pair in settings.items():
        try:
            setting: AppSetting | None = unpacked({name: pair}).get(name)
        except AppLoadError:
            kept[short(name)] = None
            continue
        if name in APP_OPTIONS and setting is not None:
            kept[name] = (setting.value, setting.origin)
    return kept


REPORT = ("outcome", "reason", "job_id", "process_id", "pid", "generation", "launch_type", "exit_code", "signal")
"""Names of the fields that are kept of a report."""
report_row: Callable[[ExitReport], Any] = attrgetter(*REPORT)
