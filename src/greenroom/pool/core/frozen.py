"""Immutable data that is quick to make.

A pool makes about ten events and effects for each step of a job. A frozen dataclass takes five times as long to make as
another object, since it sets each field by ``object.__setattr__``. A hundred dataclasses take 0.1 s to import. So here
only ``__init__`` is generated, and only the type checker forbids to set a field.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, field
from typing import Any, TypeVar, dataclass_transform

__all__ = ["Plain", "plain"]

Made = TypeVar("Made")


class Plain:
    """Base class of plain data. Equality, hash and representation use the fields."""

    __slots__ = ()
    FIELDS: dict[str, Any] = {}  # noqa: RUF012, since each class has its own
    """Default of each field, by name; ``MISSING`` without a default."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.FIELDS)

    def __hash__(self) -> int:
        hashed = (name for name, default in self.FIELDS.items() if getattr(default, "hash", None) is not False)
        return hash((type(self), *(getattr(self, name) for name in hashed)))

    def __replace__(self, /, **changes: Any) -> Any:
        """Return a copy with other values. Since Python 3.13, :func:`copy.replace` calls this method."""
        return type(self)(**{name: getattr(self, name) for name in self.FIELDS} | changes)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.FIELDS)
        return f"{type(self).__name__}({values})"


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def plain(made: type[Made]) -> type[Made]:
    """Make a class of plain data, with slots and an ``__init__`` for its annotated fields.

    Of :func:`dataclasses.field`, the parameters ``default_factory``, ``kw_only`` and ``hash`` are supported.
    """
    namespace = {name: value for name, value in made.__dict__.items() if name not in ("__dict__", "__weakref__")}
    own = {name: namespace.pop(name, MISSING) for name in namespace.get("__annotations__", {})}
    bases = made.__bases__ if made.__bases__ != (object,) else (Plain,)
    known = {**getattr(bases[0], "FIELDS", {}), **own}
    namespace |= {"__slots__": tuple(own), "FIELDS": known, "__init__": _init_of(known)}
    return type(made.__name__, bases, namespace)


def _init_of(known: dict[str, Any]) -> Any:
    """Generate ``__init__``. Its globals hold the defaults, and its body calls each ``default_factory``."""
    given: dict[str, Any] = {"_MISSING": MISSING}
    positional: list[str] = []
    keywords: list[str] = []
    lines: list[str] = []
    for name, default in known.items():
        is_field = isinstance(default, Field)
        parameter, value = name, name
        if is_field and default.default_factory is not MISSING:
            given[f"_{name}"] = default.default_factory
            parameter, value = f"{name}=_MISSING", f"_{name}() if {name} is _MISSING else {name}"
        elif default is not MISSING:
            given[f"_{name}"] = default
            parameter = f"{name}=_{name}"
        (keywords if is_field and default.kw_only is True else positional).append(parameter)
        lines.append(f"    self.{name} = {value}")
    parameters = ["self", *positional, *(["*", *keywords] if keywords else [])]
    exec(f"def __init__({', '.join(parameters)}):\n" + ("\n".join(lines) or "    pass"), given)
    return given["__init__"]
