"""Reader of recordings, which checks each line and executes nothing that is in the recording.

A worker writes short rows: the number of a class, and the values of its fields in order. :func:`written_out` adds the
names, from the vocabulary in the header of the recording. A replay reads both forms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from ..core import vocabulary as v
from .event_rows import happening_of
from .field_kinds import BadRow
from .recorder import FORM

__all__ = [
    "LONGEST_LINE",
    "MOST_BYTES",
    "Begin",
    "End",
    "Event",
    "Header",
    "Line",
    "Lost",
    "Record",
    "lines_of",
    "written_out",
]

LONGEST_LINE = 16 * 2**20
"""Most bytes of a line. An event that ends thousands of processes at once takes a megabyte."""
MOST_BYTES = 512 * 2**20
"""Most bytes of a recording: the largest recording, written out with names."""


class Header(NamedTuple):
    """Beginning of a segment."""

    values: dict[str, Any]


class Begin(NamedTuple):
    """Beginning of a state, which is the state after event ``number``. ``records`` is the count of its records."""

    number: int
    records: int


class Record(NamedTuple):
    """One record of a state."""

    name: str
    values: dict[str, Any]


class End(NamedTuple):
    """End of a state."""


class Lost(NamedTuple):
    """Event that could not be recorded."""

    number: int
    cause: str


class Event(NamedTuple):
    """Event, with the effects that followed from it. ``now`` is in seconds on the pool's clock."""

    number: int
    now: float
    values: dict[str, Any]
    effects: list[dict[str, Any]]
    deadlines: list[float | None]
    """Next deadline of the core, as the only item. Empty if the deadline is the same as before."""
    raised: str

    def happening(self) -> v.Happening:
        """Return the event as the core takes it in. Raises :class:`BadRow`."""
        made: v.Happening = happening_of(self.values)
        return made


class Line(NamedTuple):
    """Line of a recording. ``place`` is its number, from 1."""

    place: int
    content: Header | Begin | Record | End | Lost | Event


def lines_of(pieces: Iterable[bytes]) -> Iterator[Line]:
    """Yield the lines of a recording. Raises :class:`BadRow`, with the number of the line.

    A last line without a newline is left out: the process died while it wrote that line.
    """
    names: _Names | None = None
    for place, text in enumerate(_whole_lines(pieces), 1):
        try:
            value = msgspec.json.decode(text)
            if isinstance(value, dict) and "flight_recording" in value:
                names = _Names(value)
                yield Line(place, Header(value))
                continue
            if names is None:
                raise BadRow("this is not a flight recording: its header is missing")
            yield Line(place, names.content(value) if names.has_rows else _content(value))
        except (msgspec.DecodeError, BadRow, RecursionError) as error:
            raise BadRow(f"line {place}: {error}") from None


def written_out(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a recording with names: one JSON object in each line. Raises :class:`BadRow`."""
    encode = msgspec.json.Encoder().encode
    offset = 0.0
    for line in lines_of(pieces):
        content = line.content
        if isinstance(content, Header):
            offset = float(content.values.get("offset") or 0.0)
        elif isinstance(content, Event) and content.values.get("event") == "Awoke":
            offset = content.values["offset"]
        yield encode(_object_of(content, offset)) + b"\n"


def _object_of(content: Header | Begin | Record | End | Lost | Event, offset: float) -> dict[str, Any]:
    match content:
        case Header(values):
            return {name: one for name, one in values.items() if name != "vocabulary"} | {"form": "objects"}
        case Begin(number, records):
            return {"state_after": number, "records": records}
        case Record(name, values):
            return {"record": name, **values}
        case End():
            return {"state_ends": True}
        case Lost(number, cause):
            return {"n": number, "lost": cause}
        case Event(number, now, values, effects, deadlines, raised):
            event = {"n": number, "now": now, "at": now + offset, **values, "effects": effects}
            if deadlines:
                event["next_deadline"] = deadlines[0]
            return event | {"raised": raised} if raised else event


def _whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest, size = b"", 0
    for piece in pieces:
        size += len(piece)
        if size > MOST_BYTES:
            raise BadRow(f"it is longer than {MOST_BYTES >> 20} MiB, which no recorder writes")
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LONGEST_LINE:
            raise BadRow(f"it has a line of more than {LONGEST_LINE >> 20} MiB, which no recorder writes")
        yield from lines


# --- rows ----------------------------------------------------------------------------------------


class _Names:
    """Vocabulary of a recording: the names of classes and fields, which give names to its rows."""

    def __init__(self, header: dict[str, Any]) -> None:
        if header["flight_recording"] != FORM:
            by = header.get("greenroom")
            raise BadRow(f"its format is {header['flight_recording']!r} of Greenroom {by}; this version reads {FORM}")
        self.has_rows = header.get("form") == "rows"
        vocabulary = header.get("vocabulary") if self.has_rows else {}
        if not isinstance(vocabulary, dict):
            raise BadRow("its header has no vocabulary")
        self._events, self._effects, self._records, self._reports = (
            _named(vocabulary.get(name, [])) for name in ("events", "effects", "records", "reports")
        )

    def content(self, value: Any) -> Begin | Record | End | Lost | Event:
        match value:
            case [int() as number, float() | int() as now, list() as row, list() as effects, *more] if len(more) < 3:
                values = self._object(self._events, row, "event")
                made = [self._object(self._effects, one, "effect") for one in effects]
                return Event(number, float(now), values, made, more[:1], str(more[1]) if len(more) > 1 else "")
            case ["record", list() as row]:
                values = self._object(self._records, row, "record")
                return Record(values.pop("record"), values)
            case ["state", int() as number, int() as records]:
                return Begin(number, records)
            case ["end"]:
                return End()
            case ["lost", int() as number, str() as cause]:
                return Lost(number, cause)
        raise BadRow("it is no line of a recording")

    def _object(self, classes: list[list[str]], row: Any, key: str) -> dict[str, Any]:
        if not isinstance(row, list) or not row or not isinstance(row[0], int) or not 0 <= row[0] < len(classes):
            raise BadRow(f"{key} {str(row)[:100]} has no class")
        name, *fields = classes[row[0]]
        if len(fields) != len(row) - 1:
            raise BadRow(f"{key} {name} has {len(row) - 1} fields, not {len(fields)}")
        values = dict(zip(fields, row[1:], strict=True))
        if key == "effect" and isinstance(values.get("report"), list):
            values["report"] = self._object(self._reports, [0, *values["report"]], "of")
            del values["report"]["of"]
        if key == "event" and name == "Died" and isinstance(values.get("last_words"), list):
            values["last_words"] = [self._object(classes, word, key) for word in values["last_words"]]
        return {key: name, **values}


def _named(classes: Any) -> list[list[str]]:
    if isinstance(classes, list) and all(_are_texts(one) for one in classes):
        return classes
    raise BadRow("its vocabulary is invalid")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


# --- objects -------------------------------------------------------------------------------------


def _content(value: Any) -> Begin | Record | End | Lost | Event:
    match value:
        case {"record": str() as name}:
            return Record(name, {field: one for field, one in value.items() if field != "record"})
        case {"state_after": int() as number, "records": int() as records}:
            return Begin(number, records)
        case {"state_ends": True}:
            return End()
        case {"n": int() as number, "lost": str() as cause}:
            return Lost(number, cause)
        case {"n": int() as number, "now": float() | int() as now, "event": str(), "effects": list() as effects}:
            if not all(isinstance(one, dict) and isinstance(one.get("effect"), str) for one in effects):
                raise BadRow("its effects are invalid")
            of_event = {name: one for name, one in value.items() if name not in _OF_LINE}
            deadlines = [value["next_deadline"]] if "next_deadline" in value else []
            return Event(number, float(now), of_event, effects, deadlines, str(value.get("raised") or ""))
    raise BadRow("it is no line of a recording")


_OF_LINE = {"n", "now", "at", "effects", "next_deadline", "raised"}
