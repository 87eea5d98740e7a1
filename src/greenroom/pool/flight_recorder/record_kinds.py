"""Kinds of the fields of the core's records: plain data is embedded, other records become references."""

from __future__ import annotations

import dataclasses
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...errors import AppLoadError, ErrorInfo
from ..core import states
from ..core import vocabulary as v
from ..core.breaker import Breaker
from ..core.deadlines import Deadlines
from ..core.effective_options import EffectiveOptions
from ..core.exit_verdict import Decision
from ..core.memory import SessionCost
from ..core.records import Timer
from ..core.sizing import Crowd, Demand
from ..core.stalls import Patience
from .event_rows import EVENT_ROWS
from .field_kinds import HELPERS, STATE, BadRow, Kind, enum_kind, kind_of, row_maker

__all__ = ["OPTIONS", "Known", "Ref", "record_kind"]


class Ref(NamedTuple):
    """Kind of a field that refers to other records. ``find`` returns them from the value that was written."""

    written: str
    find: Callable[[Known, Any], Any]


class Known:
    """Records that were read so far, by class name and key."""

    def __init__(self) -> None:
        self.by_class: defaultdict[str, dict[Any, Any]] = defaultdict(dict)

    def one(self, name: str, key: Any) -> Any:
        """Return a record. Raises :class:`BadRow` if there is none."""
        try:
            return self.by_class[name][key]
        except (KeyError, TypeError):
            raise BadRow(f"there is no {name} {key!r} in this state") from None

    def each(self, name: str, keys: Any) -> dict[Any, Any]:
        """Return records by their keys, in the order of the keys. Raises :class:`BadRow`."""
        if not isinstance(keys, list):
            raise BadRow(f"{keys!r} is not a list")
        return {key: self.one(name, key) for key in keys}


# --- embedded data -------------------------------------------------------------------------------


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise BadRow(f"{value!r} are not texts")
    return value


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not all(isinstance(one, (int, float)) for one in value.values()):
        raise BadRow(f"{value!r} are not numbers")
    return dict(value)


def _three(value: Any) -> list[Any]:
    return _list(value, 3)


def _list(value: Any, count: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (count is not None and len(value) != count):
        raise BadRow(f"{value!r} is not a list of {count} values")
    return value


def _error_info(value: Any) -> ErrorInfo | None:
    if value is None:
        return None
    kind, has_message, has_traceback = _list(value, 3)
    return ErrorInfo(str(kind), "(withheld)" if has_message else "", "(withheld)" if has_traceback else "")


def _embedded(made: type, more: Mapping[str, Kind]) -> Kind:
    """Return the kind of a field that holds an object of plain data, or ``None``.

    ``more`` has the kinds of those fields of the object that :func:`kind_of` does not know.
    """
    kinds = {
        field.name: more.get(field.name) or kind_of(str(field.type), field.name, made.__name__, STATE)
        for field in dataclasses.fields(made)
    }
    name = f"row_of_{made.__name__}"
    HELPERS[name] = row_maker(kinds)

    def read(value: Any) -> Any:
        if value is None:
            return None
        values = zip(kinds, _list(value, len(kinds)), strict=True)
        return made(**{name: kinds[name].read(one) for name, one in values})

    return Kind(f"None if {{}} is None else {name}({{}})", read)


def _decision_row(one: Decision | None) -> Any:
    return None if one is None else (one.reason, bool(one.detail), one.spares_own_end, one.job_is_over)


def _decision(value: Any) -> Decision | None:
    if value is None:
        return None
    reason, has_detail, spares, is_over = _list(value, 4)
    return Decision(reason, "(withheld)" if has_detail else "", bool(spares), bool(is_over))


def _error_row(one: ErrorInfo | None) -> Any:
    return None if one is None else (one.type, bool(one.message), bool(one.traceback))


def _ended_row(one: v.Ended | None) -> Any:
    if one is None:
        return None
    return one.process, one.how, one.told, _error_row(one.error), None if one.result is None else len(one.result)


_BYTES = kind_of("bytes | None", "", "", STATE)


def _ended(value: Any) -> v.Ended | None:
    if value is None:
        return None
    process, how, told, error, result = _list(value, 5)
    return v.Ended(process, how, bool(told), _error_info(error), _BYTES.read(result))


def _terms(known: Known, value: Any) -> EffectiveOptions:
    options, fixed = _list(value, 2)
    return EffectiveOptions(known.one("PoolOptions", options), frozenset(_texts(fixed)))


class _Options:
    """Numbers for the options of all records. Most records have the same options, so these are written once."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.all: dict[Any, int] = {}
        self._by_id: dict[int, int] = {}

    def number(self, options: Any) -> int:
        known = self._by_id.get(id(options))
        if known is None:
            known = self._by_id[id(options)] = self.all.setdefault(options, len(self.all))
        return known


OPTIONS = _Options()
_HEARD = {one.__name__: one for one in EVENT_ROWS}
HELPERS |= {
    "state_decision": _decision_row,
    "state_error": _error_row,
    "state_ended": _ended_row,
    "options": OPTIONS.number,
}
_DECISION = Kind("state_decision({})", _decision)
_ERROR = Kind("state_error({})", _error_info)
_BREAKER = _embedded(Breaker, {})
_OPTIONS_REF = Ref("options({})", lambda known, value: known.one("PoolOptions", value))
_TERMS = Ref("(options({}.options), sorted({}.fixed))", _terms)
_EMBEDDED: dict[str, Kind | Ref] = {
    "Breaker": _BREAKER,
    "Demand": _embedded(Demand, {}),
    "Crowd": _embedded(Crowd, {"_old": Kind("sorted({})", lambda value: frozenset(_texts(value)))}),
    "SessionCost": _embedded(
        SessionCost,
        {
            "_running": Kind("dict({})", _numbers),
            "_peaks": Kind("dict({})", _numbers),
            "_ended": Kind("tuple({})", lambda value: deque(_list(value), maxlen=SessionCost()._ended.maxlen)),
        },
    ),
    "Patience": _embedded(Patience, {}),
    "Timer": _embedded(Timer, {}),
    "Decision | None": _DECISION,
    "ErrorInfo | None": _ERROR,
    "Ended | None": Kind("state_ended({})", _ended),
    "Reaped | None": Kind("", lambda value: None),
    "ExitReport | None": Kind("", lambda value: None),
    "AppLoadError | None": Kind("{} is not None", lambda value: AppLoadError("(withheld)") if value else None),
    "PoolOptions": _OPTIONS_REF,
    "EffectiveOptions": _TERMS,
    "dict[tuple[str, str], bytes]": Kind(
        "tuple((topic, key, len(body)) for (topic, key), body in {}.items())",
        lambda value: {(str(topic), str(key)): _BYTES.read(size) for topic, key, size in map(_three, _list(value))},
    ),
    "Labels": Kind("{}", kind_of("Labels", "", "", STATE).read),
    "set[type]": Kind(
        "sorted(kind.__name__ for kind in {})",
        lambda value: {_HEARD[name] for name in _texts(value) if name in _HEARD},
    ),
    "deque[int]": Kind("tuple({})", lambda value: deque(_list(value))),
    "Deadlines": Kind("{}._serial", lambda value: Deadlines(_serial=int(value))),
    "list[Effect]": Kind("", lambda value: []),
    "ProcessState": enum_kind(states.ProcessState),
    "JobState": enum_kind(states.JobState),
    "AskState": enum_kind(states.AskState),
    "LauncherState": enum_kind(states.LauncherState),
    "GenerationState": enum_kind(states.GenerationState),
    "JobQueueState": enum_kind(states.JobQueueState),
    "Launcher": Ref("{}.number", lambda known, value: known.one("Launcher", value)),
    "Generation": Ref("{}.number", lambda known, value: known.one("Generation", value)),
    "Job": Ref("{}.number", lambda known, value: known.one("Job", value)),
    "Launcher | None": Ref("{} and {}.number", lambda known, value: value and known.one("Launcher", value)),
    "Generation | None": Ref("{} and {}.number", lambda known, value: value and known.one("Generation", value)),
    "Process | None": Ref("{} and {}.id", lambda known, value: value and known.one("Process", value)),
    "Job | None": Ref(
        "None if {} is None else {}.number", lambda known, value: None if value is None else known.one("Job", value)
    ),
    "Ask | None": Ref(
        "None if {} is None else {}.number",
        lambda known, value: None if value is None else known.one("Ask", value),
    ),
    "JobQueue": Ref("True", lambda known, value: known.one("JobQueue", True)),
    "dict[str, Process]": Ref("tuple({})", lambda known, value: known.each("Process", value)),
    "dict[int, Launcher]": Ref("tuple({})", lambda known, value: known.each("Launcher", value)),
    "dict[int, Generation]": Ref("tuple({})", lambda known, value: known.each("Generation", value)),
    "dict[int, Job]": Ref("tuple({})", lambda known, value: known.each("Job", value)),
    "dict[str, Job]": Ref(
        "tuple(job.number for job in {}.values())",
        lambda known, value: {job.id: job for job in known.each("Job", value).values()},
    ),
    "deque[Job]": Ref(
        "tuple(job.number for job in {})", lambda known, value: deque(known.one("Job", one) for one in _list(value))
    ),
    "list[Ask]": Ref(
        "tuple(ask.number for ask in {})", lambda known, value: [known.one("Ask", one) for one in _list(value)]
    ),
}


def record_kind(field: dataclasses.Field[Any], owner: str) -> Kind | Ref:
    """Return the kind of a record's field. Raises :class:`TypeError` if the annotation is not known."""
    return _EMBEDDED.get(str(field.type)) or kind_of(str(field.type), field.name, owner, STATE)
