"""Steps of records by their tables. Only this module assigns the state of a record that has a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .records import Pool
from .states import Bound
from .vocabulary import Breach

__all__ = ["Action", "Machine", "Observed", "Row", "quiet", "register", "step"]

Action = Callable[[Pool, Any, Any], None]


_KEEP, _NONE = Bound.KEEP, Bound.NONE


class Row(NamedTuple):
    """Consequence of an event in a state."""

    then: Any
    """Next state."""
    bound: Bound = Bound.KEEP
    """Deadline of the next state."""
    do: tuple[Action, ...] = ()
    """Actions in order, after the change of state. Each action gets the pool, the record and the data of the event."""


def quiet(state: Any, *events: Any) -> dict[Any, Row]:
    """Return rows for events that change nothing in a state."""
    return {event: Row(state) for event in events}


class Machine:
    """Driver for one kind of record, with the table and the deadlines of this kind."""

    def __init__(
        self,
        table: Mapping[Any, Mapping[Any, Row]],
        seconds: Callable[[Pool, Any, Bound], float | None],
        changed: Callable[[Pool, Any, Any], None],
        name: Callable[[Any], str],
    ) -> None:
        self.table = table
        self._seconds = seconds
        self._changed = changed
        self._name = name

    def step(self, pool: Pool, record: Any, event: Any, data: Any = None) -> bool:
        """Move a record by an event. Return false, and emit a breach, if the event cannot happen in the state."""
        row = self.table[record.state].get(event)
        if row is None:
            pool.emit(Breach(self._name(record), record.state.name, event.name))
            return False
        then, bound, do = row
        before, record.state = record.state, then
        if bound is not _KEEP:
            seconds = None if bound is _NONE else self._seconds(pool, record, bound)
            if seconds is not None:
                pool.deadlines.set(record, pool.now, seconds)
            elif record.due is not None or record.left is not None:
                pool.deadlines.clear(record)
        if before is not then:
            self._changed(pool, record, before)
        for action in do:
            action(pool, record, data)
        return True


_MACHINES: dict[type, Machine] = {}


def register(kind: type, machine: Machine) -> Machine:
    """Register the machine that drives records of a kind, and return it."""
    _MACHINES[kind] = machine
    return machine


def step(pool: Pool, record: Any, event: Any, data: Any = None) -> bool:
    """Move a record of any kind by an event. See :meth:`Machine.step`."""
    return _MACHINES[type(record)].step(pool, record, event, data)


class Observed:
    """Context in which each step calls an observer instead, for replays that explain decisions.

    The observer must call ``machine.step``, and return its result.
    """

    def __init__(self, observer: Callable[[Machine, Pool, Any, Any, Any], bool]) -> None:
        self._observer = observer
        self._before: dict[type, Machine] = {}

    def __enter__(self) -> None:
        self._before = dict(_MACHINES)
        _MACHINES.update({kind: _Watched(one, self._observer) for kind, one in _MACHINES.items()})

    def __exit__(self, *error: object) -> None:
        _MACHINES.update(self._before)


class _Watched(Machine):
    def __init__(self, machine: Machine, observer: Callable[[Machine, Pool, Any, Any, Any], bool]) -> None:
        self._machine = machine
        self._observer = observer

    def step(self, pool: Pool, record: Any, event: Any, data: Any = None) -> bool:
        return self._observer(self._machine, pool, record, event, data)
