"""An operator with nothing but the JSON log of workers that are gone. Each fact must be in a field of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from .facts import Facts

__all__ = ["read_log"]

_CAUSES = ("cause", "detail", "reason")
_Line = Mapping[str, Any]


def read_log(lines: Iterable[_Line], wanted: Mapping[str, str], facts: Facts, place_in: Mapping[str, str]) -> None:
    """Find all facts in the fields of the log.

    ``wanted`` are fields of the line about the incident, and ``place_in`` of the line that has file and line.
    """
    lines = list(lines)
    found = [line for line in lines if _is_about(line, wanted, facts)]
    assert found, f"no line of the log has {wanted}, {facts}\n" + "\n".join(map(str, lines))
    if facts.caller is not None:
        of_call = [line for line in lines if _is_of_call(line, facts)]
        assert facts.caller in [(line.get("metadata") or {}).get("caller") for line in of_call], of_call
    if facts.place is not None:
        places = [(line.get("file"), line.get("line")) for line in lines if place_in.items() <= line.items()]
        assert facts.place in places, places


def _is_about(line: _Line, wanted: Mapping[str, str], facts: Facts) -> bool:
    is_cause = facts.cause is None or any(facts.cause in str(line.get(name, "")) for name in _CAUSES)
    is_call = facts.call is None or _is_of_call(line, facts)
    return wanted.items() <= line.items() and is_cause and is_call and facts.is_when(_time(line))


def _is_of_call(line: _Line, facts: Facts) -> bool:
    return line.get("job_id") == facts.call


def _time(line: _Line) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()
