"""Events and effects as rows: the number of the class, and the values of its fields in order."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, get_args

from .. import events
from ..core import vocabulary as v
from ..core.frozen import Plain
from .field_kinds import EFFECT, EVENT, HELPERS, BadRow, Kind, kind_of, row_maker
from .trimmed_rows import REPORT

__all__ = ["EFFECT_ROWS", "EVENT_ROWS", "Form", "Row", "effects", "happenings", "vocabulary"]

Row = tuple[Any, ...]


class Form(NamedTuple):
    """Form of a row, for one class of events or effects."""

    number: int
    made: type
    kinds: Mapping[str, Kind]
    """Kinds of the fields that are recorded, by name."""
    left_out: Mapping[str, Kind]
    make_row: Callable[[Any], Row]

    @property
    def names(self) -> list[str]:
        """Names of the values in a row, after the number of the class."""
        return list(self.kinds)

    def read(self, values: Mapping[str, Any]) -> Any:
        """Make the object from its values. Raises :class:`BadRow`."""
        try:
            given = {name: kind.read(values[name]) for name, kind in self.kinds.items() if name in values}
            return self.made(**given)
        except (BadRow, TypeError) as error:
            raise BadRow(f"{self.made.__name__}: {error}") from None


def _forms(classes: Iterable[type], where: str) -> dict[str, Form]:
    found: dict[str, Form] = {}
    for number, made in enumerate(sorted(classes, key=lambda one: one.__name__)):
        kinds = {name: _kind_of(kind, name, made.__name__, where) for name, kind in _annotated(made).items()}
        kept = {name: kind for name, kind in kinds.items() if kind.written}
        left_out = {name: kind for name, kind in kinds.items() if not kind.written}
        found[made.__name__] = Form(number, made, kept, left_out, row_maker(kept, str(number)))
    return found


def _annotated(made: Any) -> dict[str, str]:
    """Return the annotations of all fields, as they stand in the source."""
    if issubclass(made, Plain):
        known: dict[str, str] = {}
        for base in reversed(made.__mro__):
            known |= inspect.get_annotations(base)
        return {name: known[name] for name in made.FIELDS}
    return {one.name: str(one.type) for one in dataclasses.fields(made) if one.name != "at"}


def _words(words: tuple[v.Happening, ...]) -> list[Row]:
    return [EVENT_ROWS[type(word)](word) for word in words]


def _read_words(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list) or any(isinstance(one, dict) and one.get("event") == "Died" for one in value):
        raise BadRow("last words must be messages")
    return tuple(happening_of(word) for word in value)


def happening_of(value: Any) -> Any:
    """Return the event from its JSON object, which has the name of its class. Raises :class:`BadRow`."""
    name = value.get("event") if isinstance(value, dict) else None
    if name not in happenings:
        raise BadRow(f"there is no event {name!r} in this version of Greenroom")
    return happenings[name].read(value)


HELPERS["words"] = _words
_PUBLIC = [getattr(events, name) for name in events.__all__ if name != "Event"]
_EFFECTS = [one for one in get_args(v.Effect) if one is not events.Event]


def _kind_of(annotation: str, name: str, owner: str, where: str) -> Kind:
    if annotation == "tuple[Happening, ...]":
        return Kind("words({})", _read_words)
    return kind_of(annotation, name, owner, where)


happenings = _forms(get_args(v.Happening), EVENT)
"""Forms of events, by class name."""
effects = _forms([*_EFFECTS, *_PUBLIC], EFFECT)
"""Forms of effects, by class name."""
EVENT_ROWS = {form.made: form.make_row for form in happenings.values()}
EFFECT_ROWS = {form.made: form.make_row for form in effects.values()}


def vocabulary() -> dict[str, Any]:
    """Return the names of all classes and fields of events, effects and reports, which give names to rows."""
    classes: dict[str, Any] = {
        kind: [[form.made.__name__, *form.names] for form in forms.values()]
        for kind, forms in (("events", happenings), ("effects", effects))
    }
    return classes | {"reports": [["ExitReport", *REPORT]]}
