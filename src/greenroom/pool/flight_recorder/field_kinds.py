"""Kinds of the fields of events, effects and records. A kind writes a field into a row, and reads it back.

The kind of a field follows from the text of its annotation. A text is withheld unless its name stands in
:data:`KEPT_TEXTS`. A text of an app or a job can hold a secret, and the core decides nothing by it. A field of an
unknown kind is an error at import, so that no new field can be forgotten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...app_facts import AppFacts
from ...errors import AppLoadError, ErrorInfo, GreenroomError
from ...job_labels import tidy_labels
from ...options import PoolOptions
from ..core.exit_verdict import ExitStatus
from ..core.stalls import DumpTime, Sample, Stall
from .trimmed_rows import error_row, kept_settings, load_error_row, raised_row, report_row, short

__all__ = [
    "EFFECT",
    "EVENT",
    "STATE",
    "BadRow",
    "Kind",
    "Withheld",
    "enum_kind",
    "kind_of",
    "options_of",
    "row_maker",
]

EVENT, EFFECT, STATE = "event", "effect", "state"
"""Places of a field: an event that the core took in, an effect of the core, or the core's state."""

KEPT_TEXTS = frozenset(
    {
        "after",
        "before",
        "cause of ForkFailed",
        "cause of Release",
        "digest",
        "ending",
        "event",
        "finding",
        "how",
        "id",
        "job_id",
        "key of SetNews",
        "kind",
        "name",
        "process",
        "process_id",
        "reason of Cancel",
        "reason of Decision",
        "source",
        "state",
        "topic",
        "who",
    }
)
"""Names of texts that are kept: texts of Greenroom's own, identifiers, and the reasons that callers give."""
MOST = 10_000
"""Largest count of processes that is read from a recording. A replay makes records for so many in memory."""
COUNTS = {"num_idle_processes", "max_idle_processes", "max_jobs", "max_concurrent_prewarms"}


class BadRow(ValueError):
    """Error for a value or a line that cannot be in a recording."""


class Withheld:
    """Substitute for bytes that were not recorded, with only their length."""

    __slots__ = ("_size",)

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Withheld) and other._size == self._size

    def __hash__(self) -> int:
        return hash(self._size)

    def __repr__(self) -> str:
        return f"<{self._size} bytes withheld>"


class Kind(NamedTuple):
    """Way to write and read a field."""

    written: str
    """Python expression that makes the written value, with ``{}`` for the field. Empty: the field is left out."""
    read: Callable[[Any], Any]


def kind_of(annotation: str, name: str, owner: str, where: str) -> Kind:
    """Return the kind of a field. Raises :class:`TypeError` if the annotation is not known."""
    if name in COUNTS:
        return Kind("{}", _count)
    if annotation in ("str", "str | None"):
        return _text(annotation, name, owner, where)
    if annotation.startswith("Literal[") or annotation in ("Script", "Reason", "RejectionReason"):
        return Kind("{}", _text_or_none)
    if annotation == "dict[str, Any]":  # of AppFacts
        return Kind("kept_settings({})", _settings) if name == "settings" else Kind("", _nothing)
    found = _KINDS.get(annotation)
    if found is None:
        raise TypeError(f"{name} of {owner}: the flight recorder has no kind for {annotation!r}. See {__name__}")
    return _NEVER_READ if where == EFFECT and annotation in _LEFT_OUT else found


def enum_kind(members: Any) -> Kind:
    """Return the kind of a field that holds a member of an enumeration."""
    by_name = {one.name: one for one in members}
    return Kind("{}.name", lambda value: _looked_up(by_name, value))


# --- reading -------------------------------------------------------------------------------------


def _looked_up(known: Mapping[str, Any], value: Any) -> Any:
    if not isinstance(value, str) or value not in known:
        raise BadRow(f"{value!r} is not one of {', '.join(known)}")
    return known[value]


def _checked(*types: type, or_none: bool = False) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if (value is None and or_none) or type(value) in types:
            return value
        raise BadRow(f"{value!r} is not of type {types[0].__name__}")

    return read


_int, _bool, _str = _checked(int), _checked(bool), _checked(str)
_int_or_none, _bool_or_none = _checked(int, or_none=True), _checked(bool, or_none=True)
_text_or_none = _checked(str, or_none=True)
_float_or_none = _checked(float, int, or_none=True)
_list = _checked(list)


def _float(value: Any) -> float:
    # JSON has no infinity: msgspec writes null. A state has only one: the time of a failure that never happened.
    return float("-inf") if value is None else float(_checked(float, int)(value))


def _withheld_text(value: Any) -> str | None:
    if value is None or value is False or value == 0:
        return None if value is None else ""
    return "(withheld)" if value is True else f"({_int(value)} characters withheld)"


def _withheld_bytes(value: Any) -> Any:
    if value is None or value == 0:
        return None if value is None else b""
    if not 0 < _int(value) < 2**48:
        raise BadRow(f"{value} is not a number of bytes")
    return Withheld(value)


def _texts(value: Any) -> list[str]:
    return [_str(text) for text in _list(value)]


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise BadRow(f"{value!r} are not labels")
    return tidy_labels(value)


def _parts(value: Any, count: int) -> list[Any]:
    if len(_list(value)) != count:
        raise BadRow(f"{value!r} does not have {count} parts")
    return list(value)


def _error_info(value: Any) -> ErrorInfo | None:
    if value is None:
        return None
    kind, message, traceback = _parts(value, 3)
    return ErrorInfo(_str(kind), _withheld_text(message) or "", _withheld_text(traceback) or "")


def _load_error(value: Any) -> AppLoadError | None:
    return None if value is None else AppLoadError(_withheld_text(_parts(value, 2)[1]))


def _sample(value: Any) -> Sample | None:
    if value is None:
        return None
    at, loop_beat, thread_beat, state, cpu, waited = _parts(value, 6)
    return Sample(_float(at), _int(loop_beat), _int(thread_beat), _str(state), _float(cpu), _float(waited))


def _status(value: Any) -> ExitStatus:
    code, signal = _parts(value, 2)
    return ExitStatus(_int_or_none(code), _int_or_none(signal))


def _settings(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRow(f"{value!r} are not settings")
    for name in COUNTS & value.keys():
        if isinstance(value[name], list) and value[name] and isinstance(value[name][0], int):
            _count(value[name][0])
    return dict(value)


def _facts(value: Any) -> AppFacts | None:
    if value is None:
        return None
    known = _list(value)
    if len(known) == len(_FACTS) - 1:
        known = [*known, 0]  # an earlier recording, without the version of the app
    kept = dict(zip(_FACTS, _parts(known, len(_FACTS)), strict=True))
    return AppFacts(manifest={}, **{name: _FACTS[name].read(one) for name, one in kept.items()})


def _count(value: Any) -> Any:
    if value is not None and _int(value) > MOST:
        raise BadRow(f"{value} is more than {MOST}, the maximum of a pool")
    return value


def options_of(value: Any) -> PoolOptions:
    """Return the pool options from their JSON object, without options that this version does not know.

    Raises :class:`BadRow`.
    """
    if not isinstance(value, dict):
        raise BadRow(f"{value!r} are not options")
    for name in COUNTS & value.keys():
        _count(value[name])
    known = {field.name for field in dataclasses.fields(PoolOptions)}
    kept: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in value.items() if name in known
    }
    try:
        return PoolOptions(**kept)
    except GreenroomError as error:
        raise BadRow(str(error)) from None


def _nothing(value: Any) -> None:
    return None


# --- the kinds -----------------------------------------------------------------------------------


def facts_row(facts: AppFacts | None) -> Any:
    return None if facts is None else _FACTS_ROW(facts)


HELPERS: dict[str, Any] = {
    one.__name__: one for one in (short, error_row, raised_row, load_error_row, kept_settings, facts_row, tidy_labels)
}
HELPERS["report_row"] = report_row


def _text(annotation: str, name: str, owner: str, where: str) -> Kind:
    is_optional = annotation != "str"
    if name in KEPT_TEXTS or f"{name} of {owner}" in KEPT_TEXTS:
        written = "(text if len(text := {}) <= 256 else short(text))"
        return Kind("None if {} is None else " + written if is_optional else written, _text_or_none)
    if where == EFFECT:
        return _NEVER_READ
    written = "len({})" if where == EVENT else "bool({})"
    return Kind("None if {} is None else " + written if is_optional else written, _withheld_text)


_NEVER_READ = Kind("", _nothing)
_LEFT_OUT = ("Labels",)
"""Annotations of fields that are left out of effects: the event that brought the job has them."""
_KINDS: dict[str, Kind] = {
    "int": Kind("{}", _int),
    "int | None": Kind("{}", _int_or_none),
    "float": Kind("{}", _float),
    "float | None": Kind("{}", _float_or_none),
    "bool": Kind("{}", _bool),
    "bool | None": Kind("{}", _bool_or_none),
    "bytes": Kind("len({})", _withheld_bytes),
    "bytes | None": Kind("None if {} is None else len({})", _withheld_bytes),
    "Labels": Kind("tidy_labels({}) if {} else {}", _labels),
    "ErrorInfo | None": Kind("error_row({})", _error_info),
    "ErrorInfo": Kind("error_row({})", _error_info),
    "GreenroomError": Kind("raised_row({})", _nothing),
    "GreenroomError | None": Kind("raised_row({})", _nothing),
    "AppLoadError": Kind("load_error_row({})", _load_error),
    "AppLoadError | None": Kind("load_error_row({})", _load_error),
    "AppFacts | None": Kind("facts_row({})", _facts),
    "Sample | None": Kind("{}", _sample),
    "Stall": enum_kind(Stall),
    "DumpTime": Kind("{}", lambda value: DumpTime(*map(_float, _parts(value, 2)))),
    "ExitStatus": Kind("{}", _status),
    "PoolOptions": Kind("({}.memory_warn_mb, {}.memory_limit_mb)", _nothing),
    "ExitReport": Kind("report_row({})", _nothing),
    "dict[str, object]": Kind("{}.get('event')", _nothing),
    "list[str]": Kind("{}", _texts),
    "tuple[News, ...]": Kind("[(one.topic, short(one.key)) for one in {}]", _nothing),
}


def row_maker(names: Mapping[str, Kind], head: str = "") -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that makes a row of an object.

    The function is compiled from one expression: a loop over the fields takes five times as long.
    """
    parts = [head] if head else []
    parts += [kind.written.replace("{}", f"one.{name}") for name, kind in names.items() if kind.written]
    made: Callable[[Any], tuple[Any, ...]] = eval(f"lambda one: ({''.join(part + ', ' for part in parts)})", HELPERS)
    return made


_FACTS: dict[str, Kind] = {
    field.name: kind_of(str(field.type), field.name, "AppFacts", EVENT)
    for field in dataclasses.fields(AppFacts)
    if field.name != "manifest"
}
_FACTS_ROW = row_maker(_FACTS)
