"""The table of docs/what-happened.md, made of the table of incidents."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .incidents import INCIDENTS, Incident

__all__ = ["doc_table"]

_HEAD = ("what happened", "on the page", "commands", "in the JSON log")


def doc_table() -> str:
    """Return the whole table, as Markdown."""
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_cells, INCIDENTS)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(incident: Incident) -> tuple[str, ...]:
    commands = ", ".join(f"`greenroom {_in_words(command)}`" for command in incident.commands)
    return incident.happened, incident.page, commands, "; ".join(_lines(incident)) or "not before its end"


def _in_words(command: str) -> str:
    return re.sub(r"\{clock_\w+\}", "14:05", command.replace("{call}", "ID"))


def _lines(incident: Incident) -> Iterator[str]:
    if incident.log is not None:
        yield _fields(incident.log)
        if incident.place_in not in ({}, incident.log):
            yield f"for the line, {_fields(incident.place_in)}"


def _fields(line: dict[str, str]) -> str:
    """Return the event and its further fields."""
    event, *others = line.items()
    return " with ".join([f"`{event[1]}`", *(f"`{name}` `{value}`" for name, value in others)])
