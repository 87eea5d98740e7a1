"""Replay of a recording. The core handles the same events again, and its effects are compared with the recording."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from ..core import vocabulary as v
from ..core.core import PoolCore
from ..core.records import Pool
from ..core.state_machine import Machine, Observed
from .event_rows import EFFECT_ROWS, effects
from .field_kinds import BadRow
from .reader import Begin, End, Event, Header, Line, Lost, Record
from .state import RECORDS, StateReader, capture, record_names
from .trimmed_rows import REPORT

__all__ = ["Difference", "Moment", "Replay", "Step"]


@dataclass(slots=True)
class Step:
    """Step of one record by a row of its table, with or without a change of state."""

    record: Any
    event: Any
    before: Any
    after: Any = None
    was_decided: Any = None
    """Decision about the end of the record, as it was before the step."""
    job_id: str | None = None
    """Id of the job that a process had before the step."""
    is_breach: bool = False
    effects: list[v.Effect] = field(default_factory=list)
    """Effects of its own row, without the effects of steps that followed for other records."""


class Difference(NamedTuple):
    """First difference between the recording and this core."""

    place: int
    """Number of the line in the recording."""
    at: float
    about: str
    recorded: list[Any]
    now: list[Any]


@dataclass(slots=True)
class Moment:
    """Event that the core has handled again."""

    number: int
    at: float
    """Time in seconds since the epoch."""
    happening: v.Happening
    steps: list[Step]
    effects: list[v.Effect]
    pool: Pool


class Replay:
    """Replay of one recording, once. The replay ends at the first difference: no later event can be compared.

    ``ends_before`` gets the time of an event, in seconds since the epoch. If it returns true, the replay ends before
    that event.
    """

    def __init__(self, lines: Iterable[Line], ends_before: Callable[[float], bool] = lambda at: False) -> None:
        self.header: dict[str, Any] = {}
        self.difference: Difference | None = None
        self.missing: list[str] = []
        """Texts about events that the recording lacks, so that they could not be replayed."""
        self.events = 0
        self.has_ended = False
        """True after ``ends_before`` has ended the replay."""
        self._ends_before = ends_before
        self._lines = lines
        self._core: PoolCore | None = None
        self._after = 0
        """Number of the latest event that was handled."""
        self._due: list[float | None] = []
        """Next deadline as recorded, as the only item. Empty until one is known."""
        self._state: _State | None = None
        self._waiting: list[tuple[int, Event]] = []
        """Events that were read before the state that they follow was complete, each with its line number."""
        self._steps: list[Step] = []
        self._owned = 0

    def moments(self) -> Iterator[Moment]:
        """Replay event by event, until the end or a difference. Raises :class:`BadRow` if a line is not valid."""
        with Observed(self._observe):
            for place, content in self._lines:
                try:
                    yield from self._take(place, content)
                except BadRow as error:
                    raise BadRow(f"line {place}: {error}") from None
                except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
                    # A forged or damaged recording can have states and events of the right types that do not fit.
                    raise BadRow(f"line {place} is inconsistent: {type(error).__name__}: {error}") from None
                if self.difference is not None or self.has_ended:
                    return
        if self._core is None:
            raise BadRow("it has no complete state to begin with")

    def _take(self, place: int, content: Any) -> Iterator[Moment]:
        match content:
            case Header(values):
                self.header = self.header or values
                self._state = None
            case Begin(number):
                self._begin_state(number)
            case Record(name, values) if self._state is not None:
                self._state.add(name, values)
            case End() if self._state is not None:
                yield from self._end_state(place, self._state)
            case Lost(number, cause):
                self._skip(f"event {number} was not recorded ({cause})")
            case Event(number) if self._core is None:
                self._waiting.append((place, content))
            case Event(number):
                yield from self._live(place, content)

    # --- states ----------------------------------------------------------------------------------

    def _begin_state(self, number: int) -> None:
        own = None
        if self._core is not None and number == self._after:
            own = _own_state(self._core)
        elif self._core is None:
            self._waiting.clear()
        self._state = _State(number, own)

    def _end_state(self, place: int, state: _State) -> Iterator[Moment]:
        self._state = None
        if self._core is None:
            self._core, self._after, self._due = state.reader.core(), state.number, []
            waiting, self._waiting = self._waiting, []
            for at_line, event in waiting:
                if self.difference is None and not self.has_ended:
                    yield from self._live(at_line, event)
            return
        found = state.difference()
        if found is not None:
            about, recorded, now = found
            about = f"the state after event {state.number}: {about}"
            self.difference = Difference(place, self._core.pool.wall, about, [recorded], [now])

    def _skip(self, what: str) -> None:
        self.missing.append(what)
        self._core, self._state = None, None
        self._waiting.clear()

    # --- events ----------------------------------------------------------------------------------

    def _live(self, place: int, event: Event) -> Iterator[Moment]:
        core = self._core
        assert core is not None
        if event.number <= self._after:
            raise BadRow(f"event {event.number} comes after event {self._after}")
        if event.number != self._after + 1:
            self._skip(f"events {self._after + 1} to {event.number - 1} are missing")
            return
        if self._ends_before(event.now + core.pool.offset):
            self.has_ended = True
            return
        self._after = event.number
        happening = event.happening()
        self._steps, self._owned, raised = [], 0, ""
        try:
            made = core.handle(happening, event.now)
        except Exception as error:
            made, raised = [], type(error).__name__
        self.events += 1
        yield Moment(event.number, core.pool.wall, happening, self._steps, made, core.pool)
        now = _objects_of(made)
        due = core.next_deadline()
        self._due = event.deadlines or self._due or [due]
        if raised != event.raised or [due] != self._due or not _are_alike(event.effects, now):
            sides = [event.effects, now]
            if raised != event.raised:
                sides = [[*event.effects, f"raised {event.raised}"], [*now, f"raised {raised}"]]
            if [due] != self._due:
                sides = [[*sides[0], f"next deadline at {self._due[0]}"], [*sides[1], f"next deadline at {due}"]]
            self.difference = Difference(place, core.pool.wall, f"event {event.number}, {happening!r}", *sides)

    def _observe(self, machine: Machine, pool: Pool, record: Any, event: Any, data: Any) -> bool:
        step = Step(record, event, record.state, was_decided=getattr(record, "decision", None))
        job = getattr(record, "job", None)
        step.job_id = job.id if job is not None else None
        self._steps.append(step)
        self._own(pool, self._steps[-2] if len(self._steps) > 1 and self._steps[-2].after is None else None)
        row = machine.table[record.state].get(event)
        has_row = machine.step(pool, record, event, data)
        self._own(pool, step)
        # From the row, not from the record: an action may already have made a further step of the record.
        step.after, step.is_breach = step.before if row is None else row.then, not has_row
        return has_row

    def _own(self, pool: Pool, step: Step | None) -> None:
        """Add the new effects to a step."""
        if step is not None:
            step.effects += pool.effects[self._owned :]
        self._owned = len(pool.effects)


class _State:
    """State that is being read: the beginning of a replay, or a state to compare with the core's own (``own``)."""

    def __init__(self, number: int, own: dict[tuple[str, Any], dict[str, Any]] | None) -> None:
        self.number = number
        self.reader = StateReader()
        self._own = own
        self._records: dict[tuple[str, Any], dict[str, Any]] = {}

    def add(self, name: str, values: dict[str, Any]) -> None:
        self.reader.add(name, values)
        if self._own is not None:
            self._records[name, RECORDS[name](values)] = values

    def difference(self) -> tuple[str, Any, Any] | None:
        """Return the name of the first difference, the recorded value and the value of this core."""
        if self._own is None:
            return None
        if self._records.keys() != self._own.keys():
            only = sorted(f"{name} {key}" for name, key in self._records.keys() ^ self._own.keys())
            return f"{only[0]} is in one of the two states only", list(self._records), list(self._own)
        for key, recorded in self._records.items():
            own = self._own[key]
            for name in recorded.keys() & own.keys():
                if recorded[name] != own[name]:
                    return f"{key[0]} {key[1]}, {name}", recorded[name], own[name]
        return None


_NAMES = record_names()


def _own_state(core: PoolCore) -> dict[tuple[str, Any], dict[str, Any]]:
    found = {}
    for number, *row in _plain(capture(core.pool)):
        name, *fields = _NAMES[number]
        values = dict(zip(fields, row, strict=True))
        found[name, RECORDS[name](values)] = values
    return found


def _objects_of(made: list[v.Effect]) -> list[Any]:
    found = []
    for effect, row in zip(made, _plain([EFFECT_ROWS[type(effect)](effect) for effect in made]), strict=True):
        name = type(effect).__name__
        values = dict(zip(effects[name].names, row[1:], strict=True))
        if "report" in values:
            values["report"] = dict(zip(REPORT, values["report"], strict=True))
        found.append({"effect": name, **values})
    return found


def _plain(rows: Any) -> Any:
    """Return rows in the form in which a file has them: with lists instead of tuples, for example."""
    return msgspec.json.decode(msgspec.json.encode(rows))


def _are_alike(recorded: list[Any], now: list[Any]) -> bool:
    """Compare effects by the fields that both versions have."""
    return len(recorded) == len(now) and all(
        one["effect"] == other["effect"] and all(one[name] == other[name] for name in one.keys() & other.keys())
        for one, other in zip(recorded, now, strict=True)
    )
