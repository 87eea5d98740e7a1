"""Table of sessions: the live ones, and below them the latest that have ended, around the selected one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import set_cell_size
from rich.text import Text

from ..reports import first_label
from ..text import NOTHING, duration, one_line
from .listing import UNANSWERED, Found, JobRef, Listing, ref_of

__all__ = ["SessionTable"]

_WORKER = "WORKER"
_WIDTHS = {"SOURCE": 8, "STATE": 20, "AGE": 7, "PID": 7, "MIB": 7, "START MS": 8}
_LEFT = frozenset({_WORKER, "SOURCE", "STATE"})
_DROPPED_FIRST = ("SOURCE", "START MS", "MIB", "AGE", "PID", _WORKER)
"""Columns that are left out on a narrow terminal, in this order."""
_NARROWEST_ID, _WIDEST_WORKER = 14, 24
_STYLES = {
    "running": "",
    "waiting": "yellow",
    "killing": "red",
    "succeeded": "bright_black",
    UNANSWERED: "bright_black",
}


class SessionTable:
    """Table of at most ``rows`` sessions; ``None`` for all live ones and the latest ten that have ended.

    ``names`` are those of the workers. A column names the worker of each session if there are several.
    """

    def __init__(
        self,
        listing: Listing,
        names: Sequence[str],
        now: float,
        width: int,
        rows: int | None,
        selected: JobRef | None,
    ) -> None:
        self._names = names
        self._now = now
        self._width = width
        self._widths = _widths_for(names, width)
        self._selected = selected
        live = len(listing.live)
        rows = live + 10 if rows is None else rows
        first = _first_shown(listing.refs, rows, selected)
        self._live = listing.live[first : first + rows]
        ended_before = max(first - live, 0)
        self._ended = listing.ended[ended_before : ended_before + rows - len(self._live)]
        self._title = _title(live, len(listing.ended), first, len(self._live))

    def title(self, found: Found | None) -> Text:
        """Return the title, with the search that has found the sessions."""
        if found is None:
            return self._title
        latest = f" (the latest {len(found.jobs)})" if found.is_cut else ""
        return self._title.copy().append(f"  filter: {one_line(found.words)}{latest}", "bold cyan")

    def lines(self) -> Iterator[Text]:
        """Yield the names of the columns, and the rows."""
        yield Text(self._row("SESSION", {name: name for name in self._widths}), "bright_black")
        for session in self._live:
            yield self._line(session, _live_cells(session, self._now), _STYLES.get(session["state"], ""))
        for session in self._ended:
            yield self._line(session, _ended_cells(session), _STYLES.get(session["outcome"], "red"))

    def _line(self, session: dict[str, Any], cells: dict[str, str], style: str) -> Text:
        cells[_WORKER] = self._names[session["worker"]]
        return Text(self._row(_name(session), cells), "reverse" if ref_of(session) == self._selected else style)

    def _row(self, name: str, cells: dict[str, str]) -> str:
        room = self._width - sum(width + 1 for width in self._widths.values())
        parts = [set_cell_size(one_line(name), max(room, 1))]
        for column, width in self._widths.items():
            cell = one_line(cells[column])
            parts.append(f"{cell:<{width}.{width}}" if column in _LEFT else f"{cell:>{width}.{width}}")
        return " ".join(parts)


def _name(session: dict[str, Any]) -> str:
    """Return the session's id, and the label by which people know the session."""
    label = first_label(session)
    return session["id"] if label is None else f"{session['id']} {label}"


def _widths_for(names: Sequence[str], width: int) -> dict[str, int]:
    """Return the width of each column but the first."""
    widths = dict(_WIDTHS)
    if len(names) > 1:
        longest = max(map(len, names))
        widths = {_WORKER: min(max(longest, len(_WORKER)), _WIDEST_WORKER)} | widths
    for name in _DROPPED_FIRST:
        if width - sum(each + 1 for each in widths.values()) >= _NARROWEST_ID:
            break
        widths.pop(name, None)
    return widths


def _first_shown(refs: Sequence[JobRef], rows: int, selected: JobRef | None) -> int:
    """Return the index of the first row that is shown.

    The selected session is in the middle, as far as the ends of the list allow.
    """
    place = refs.index(selected) if selected in refs else 0
    return min(max(place - rows // 2, 0), max(len(refs) - rows, 0))


def _title(live: int, ended: int, first: int, shown: int) -> Text:
    part = f"{first + 1} to {first + shown} of {live}" if 0 < shown < live else str(live)
    return Text(f"sessions {part}" + (f"  ended {ended}" if ended else ""))


def _live_cells(session: dict[str, Any], now: float) -> dict[str, str]:
    return _cells(session, session["state"], _seconds(session["accepted"], now), session["private_mb"])


def _ended_cells(session: dict[str, Any]) -> dict[str, str]:
    end = f"{session['outcome']}, {session['reason']}" if session["reason"] else session["outcome"]
    return _cells(session, end, _seconds(session["accepted"], session["ended"]), None)


def _seconds(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin


def _cells(session: dict[str, Any], state: str, seconds: float | None, memory: float | None) -> dict[str, str]:
    return {
        "SOURCE": session["source"] or NOTHING,
        "STATE": state or NOTHING,
        "AGE": NOTHING if seconds is None else duration(seconds),
        "PID": NOTHING if session["pid"] is None else str(session["pid"]),
        "MIB": NOTHING if memory is None else f"{memory:.1f}",
        "START MS": NOTHING if session["start_ms"] is None else f"{session['start_ms']:.1f}",
    }
