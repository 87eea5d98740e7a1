"""Table of sessions: the live ones around the selected one, and below them the latest that have ended. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import set_cell_size
from rich.text import Text

from ..reports import first_label
from ..text import NOTHING, duration, one_line
from .picture import Picture

__all__ = ["SessionTable"]

_WIDTHS = {"SOURCE": 8, "STATE": 20, "AGE": 7, "PID": 7, "MIB": 7, "START MS": 8}
_LEFT = frozenset({"SOURCE", "STATE"})
_DROPPED_FIRST = ("SOURCE", "START MS", "MIB", "AGE", "PID")
"""Columns that are left out on a narrow terminal, in this order."""
_NARROWEST_ID = 14
_STYLES = {"running": "", "waiting": "yellow", "killing": "red", "succeeded": "bright_black"}


class SessionTable:
    """Table of at most ``rows`` sessions; ``None`` for all live ones and the latest ten that have ended."""

    def __init__(self, picture: Picture, now: float, width: int, rows: int | None, selected: str | None) -> None:
        self._now = now
        self._width = width
        self._columns = _columns_for(width)
        self._selected = selected
        live = picture.live_sessions()
        rows = len(live) + 10 if rows is None else rows
        first = _first_shown([session["id"] for session in live], rows, selected)
        self._live = live[first : first + rows]
        self._ended = picture.ended_sessions()[: rows - len(self._live)]
        self.title = _title(len(live), first, len(self._live))

    def lines(self) -> Iterator[Text]:
        """Yield the names of the columns, and the rows."""
        yield Text(self._row("SESSION", {name: name for name in _WIDTHS}), "bright_black")
        for session in self._live:
            style = "reverse" if session["id"] == self._selected else _STYLES.get(session["state"], "")
            yield Text(self._row(_name(session), _live_cells(session, self._now)), style)
        for session in self._ended:
            yield Text(self._row(_name(session), _ended_cells(session)), _STYLES.get(session["outcome"], "red"))

    def _row(self, name: str, cells: dict[str, str]) -> str:
        room = self._width - sum(_WIDTHS[name] + 1 for name in self._columns)
        parts = [set_cell_size(one_line(name), max(room, 1))]
        for column in self._columns:
            cell, width = one_line(cells[column]), _WIDTHS[column]
            parts.append(f"{cell:<{width}.{width}}" if column in _LEFT else f"{cell:>{width}.{width}}")
        return " ".join(parts)


def _name(session: dict[str, Any]) -> str:
    """Return the session's id, and the label by which people know the session."""
    label = first_label(session)
    return session["id"] if label is None else f"{session['id']} {label}"


def _columns_for(width: int) -> list[str]:
    columns = list(_WIDTHS)
    for name in _DROPPED_FIRST:
        if width - sum(_WIDTHS[column] + 1 for column in columns) >= _NARROWEST_ID:
            break
        columns.remove(name)
    return columns


def _first_shown(live: Sequence[str], rows: int, selected: str | None) -> int:
    """Return the index of the first row that is shown.

    The selected session is in the middle, as far as the ends of the list allow.
    """
    place = live.index(selected) if selected in live else 0
    return min(max(place - rows // 2, 0), max(len(live) - rows, 0))


def _title(live: int, first: int, shown: int) -> Text:
    return Text(f"sessions {live}" if shown == live else f"sessions {first + 1} to {first + shown} of {live}")


def _live_cells(session: dict[str, Any], now: float) -> dict[str, str]:
    return _cells(session, session["state"], now - session["accepted"], session["private_mb"])


def _ended_cells(session: dict[str, Any]) -> dict[str, str]:
    return _cells(session, f"{session['outcome']}, {session['reason']}", session["ended"] - session["accepted"], None)


def _cells(session: dict[str, Any], state: str, seconds: float, memory: float | None) -> dict[str, str]:
    return {
        "SOURCE": session["source"],
        "STATE": state,
        "AGE": duration(seconds),
        "PID": NOTHING if session["pid"] is None else str(session["pid"]),
        "MIB": NOTHING if memory is None else f"{memory:.1f}",
        "START MS": NOTHING if session["start_ms"] is None else f"{session['start_ms']:.1f}",
    }
