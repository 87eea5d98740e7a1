"""Descriptions of all settings: group, name, type and meaning, read from the fields that declare them."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from . import DEFAULTS, Settings

__all__ = ["OFF", "PREFIX", "Setting", "all_settings", "groups"]

PREFIX = "GREENROOM_"
OFF = "off"


@dataclass(frozen=True, slots=True)
class Setting:
    """Setting: one field of one group."""

    group: str
    name: str
    kind: Any
    """Type of the value, without None."""
    none: str | None
    """Word for None: ``off``, or the word in ``field(metadata={"none": ...})``. None if the value cannot be None."""
    is_secret: bool
    """True if the value is never shown. Declared by ``field(metadata={"secret": True})``."""
    doc: str
    is_secret_file: bool = False
    """True if the value is the path of a file with a secret. Declared by ``field(metadata={"secret_file": True})``."""
    is_never_empty: bool = False
    """True if an empty variable is an error. If it were ignored, a protection would be off without notice.

    Declared by ``field(metadata={"never_empty": True})``.
    """

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def choices(self) -> tuple[str, ...]:
        """All possible values, if these are a closed list; else empty."""
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()

    @property
    def is_list(self) -> bool:
        return typing.get_origin(self.kind) in (tuple, list, frozenset)

    def of(self, settings: Settings) -> Any:
        return getattr(getattr(settings, self.group), self.name)

    def default(self, command: str) -> Any:
        return self.of(DEFAULTS[command])


@functools.cache
def groups() -> dict[str, type]:
    """Return the type of each group, in the order of the help and the documentation."""
    hints = typing.get_type_hints(Settings)
    return {field.name: hints[field.name] for field in dataclasses.fields(Settings)}


@functools.cache
def all_settings() -> dict[str, Setting]:
    """Return every setting, by name."""
    found = {}
    for group, kind in groups().items():
        hints, docs = typing.get_type_hints(kind), _docstrings(kind)
        for field in dataclasses.fields(kind):
            inner, is_optional = _without_none(hints[field.name])
            none = field.metadata.get("none", OFF) if is_optional else None
            is_secret, is_file, is_never_empty = (
                bool(field.metadata.get(mark)) for mark in ("secret", "secret_file", "never_empty")
            )
            doc = " ".join(docs.get(field.name, "").split())
            assert field.name not in found, f"two settings are called {field.name}"
            found[field.name] = Setting(group, field.name, inner, none, is_secret, doc, is_file, is_never_empty)
    return found


def _without_none(hint: Any) -> tuple[Any, bool]:
    if not isinstance(hint, types.UnionType):
        return hint, False
    (inner,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    return inner, True


def _docstrings(kind: type) -> dict[str, str]:
    """Return the string below each field, by name. The result is empty without a source, as in a frozen program."""
    try:
        source = inspect.getsource(kind)
    except OSError:
        return {}
    (definition,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in itertools.pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = str(ast.literal_eval(below.value))
    return found
