"""State of a core as rows. A replay makes a core from the rows, and begins with that core.

Records refer to each other in a circle, so a row holds numbers and ids instead of records. All rows are taken in one
moment, so this must be quick. A row holds no data that changes later, so rows can be encoded in small parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..core import records
from ..core.core import PoolCore
from ..core.deadlines import Timed
from ..core.records import Pool
from .field_kinds import BadRow, Kind, options_of, row_maker
from .record_kinds import OPTIONS, Known, Ref, record_kind

__all__ = ["RECORDS", "Row", "StateReader", "capture", "record_names"]

Row = tuple[Any, ...]


class _Form(NamedTuple):
    number: int
    made: type
    kinds: Mapping[str, Kind | Ref]
    key: Callable[[Mapping[str, Any]], Any]
    make_row: Callable[[Any], Row]


def _form(number: int, made: type, key: Callable[[Mapping[str, Any]], Any]) -> _Form:
    kinds: dict[str, Any] = {}
    for field in dataclasses.fields(made):
        kinds[field.name] = record_kind(field, made.__name__)
    return _Form(number, made, kinds, key, row_maker(kinds, str(number)))


RECORDS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "Pool": lambda values: True,
    "JobQueue": lambda values: True,
    "Generation": lambda values: values["number"],
    "Launcher": lambda values: values["number"],
    "Process": lambda values: values["id"],
    "Job": lambda values: values["number"],
    "Ask": lambda values: values["number"],
    "PoolOptions": lambda values: values["number"],
}
"""Classes of a state. Each has a function that returns the key by which other records refer to a record."""
_FORMS = {
    name: _form(number, getattr(records, name), key)
    for number, (name, key) in enumerate(RECORDS.items())
    if name != "PoolOptions"
}
_OPTIONS_NUMBER = len(_FORMS)


def record_names() -> list[list[str]]:
    """Return the names of all classes and fields of a state, which give names to its rows."""
    forms = [[name, *(field for field, kind in form.kinds.items() if kind.written)] for name, form in _FORMS.items()]
    return [*forms, ["PoolOptions", "number", "options"]]


def capture(pool: Pool) -> list[Row]:
    """Return the state of a pool between two events, as rows. Later events do not change these rows."""
    launchers, jobs = dict(pool.launchers), dict(pool.job_queue.jobs)
    generations, processes = dict(pool.generations), dict(pool.processes)
    for process in pool.processes.values():
        # A process may refer to a lost launcher or an ended job, and a launcher to a retired generation.
        launchers.setdefault(process.launcher.number, process.launcher)
        if process.job is not None:
            jobs.setdefault(process.job.number, process.job)
    for launcher in launchers.values():
        generations.setdefault(launcher.generation.number, launcher.generation)
    asks = {ask.number: ask for one in generations.values() for ask in one.asks}
    for job in jobs.values():
        if job.ask is not None:
            asks.setdefault(job.ask.number, job.ask)
    OPTIONS.clear()
    rows = [_FORMS["Pool"].make_row(pool), _FORMS["JobQueue"].make_row(pool.job_queue)]
    every: tuple[tuple[str, Iterable[Any]], ...] = (
        ("Generation", generations.values()),
        ("Launcher", launchers.values()),
        ("Process", processes.values()),
        ("Job", jobs.values()),
        ("Ask", asks.values()),
    )
    for name, ones in every:
        rows += map(_FORMS[name].make_row, ones)
    names = [field.name for field in dataclasses.fields(pool.options)]
    for options, number in OPTIONS.all.items():
        rows.append((_OPTIONS_NUMBER, number, {name: getattr(options, name) for name in names}))
    OPTIONS.clear()
    return rows


class StateReader:
    """Reader that takes in the records of a state one by one, and makes a core of them."""

    def __init__(self) -> None:
        self._known = Known()
        self._open: list[tuple[Any, str, Ref, Any]] = []

    def add(self, name: str, values: Mapping[str, Any]) -> None:
        """Take in a record. Raises :class:`BadRow`."""
        if name not in RECORDS:
            raise BadRow(f"there is no record {name!r} in this version of Greenroom")
        try:
            key = RECORDS[name](values)
            made = options_of(values["options"]) if name == "PoolOptions" else self._made(_FORMS[name], values)
            self._known.by_class[name][key] = made
        except (KeyError, TypeError, ValueError) as error:
            raise BadRow(f"{name}: {error}") from None

    def _made(self, form: _Form, values: Mapping[str, Any]) -> Any:
        made: Any = object.__new__(form.made)
        for field in dataclasses.fields(form.made):
            kind = form.kinds[field.name]
            if kind.written and field.name not in values:
                setattr(made, field.name, _default(form, field))
            elif isinstance(kind, Ref):
                self._open.append((made, field.name, kind, values[field.name]))
            else:
                setattr(made, field.name, kind.read(values.get(field.name)))
        return made

    def core(self) -> PoolCore:
        """Return the core from the records. Raises :class:`BadRow` if a record is missing."""
        for made, name, ref, value in self._open:
            setattr(made, name, ref.find(self._known, value))
        pool = self._known.one("Pool", True)
        core: PoolCore = object.__new__(PoolCore)
        core.pool = pool
        timed: list[Timed] = [pool.refill, pool.housekeeping, pool.retry]
        for name in ("JobQueue", "Process", "Job", "Launcher", "Generation", "Ask"):
            timed += self._known.by_class[name].values()
        for one in timed:
            pool.deadlines.know(one)
        return core


def _default(form: _Form, field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field that an earlier version did not have. Raises :class:`BadRow` without a default."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise BadRow(f"it has no {field.name}")
