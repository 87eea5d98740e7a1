"""Fields of a log line besides its text, for programs that read the log."""

from __future__ import annotations

from typing import Any

__all__ = ["log_fields"]

_IDS = ("process_id", "job_pid", "job_id", "generation", "labels")
"""Details that are also attributes of the log record, for formatters that name them."""


def log_fields(event: str, **details: Any) -> dict[str, Any]:
    """Return the ``extra=`` for a log line about an event: the event's name, the ids, and all known details."""
    known = {name: value for name, value in details.items() if value is not None}
    return {"event": event, "details": known, **{name: details.get(name) for name in _IDS}}
