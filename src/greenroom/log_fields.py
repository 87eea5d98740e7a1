"""What a log line carries besides its text, so that a machine can read what a person reads."""

from __future__ import annotations

from typing import Any

__all__ = ["log_fields"]

_IDS = ("process_id", "job_pid", "job_id", "generation", "labels")
"""What is also an attribute of the record of its own, for formatters that name it."""


def log_fields(event: str, **details: Any) -> dict[str, Any]:
    """The ``extra=`` of a line that tells of an event: its name, ids, and what there is to know."""
    known = {name: value for name, value in details.items() if value is not None}
    return {"event": event, "details": known, **{name: details.get(name) for name in _IDS}}
