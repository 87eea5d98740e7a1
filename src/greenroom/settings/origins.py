"""Origins of the values of settings."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Given", "Layer", "Origin", "did_you_mean"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of a value: a default, or the place where the value is set."""

    kind: Literal["default", "app", "file", "environment", "flag"]
    name: str
    """Name of the command, file, variable or flag, or the code of the app that sets the value."""
    line: int | None = None

    def __str__(self) -> str:
        if self.kind == "default":
            return f"default of {self.name}"
        return self.name if self.line is None else f"{self.name}, line {self.line}"


@dataclass(frozen=True, slots=True)
class Given:
    """Value of the right type, with its origin."""

    value: Any
    origin: Origin


Layer = dict[str, Given]
"""Values by the name of the setting, without those that are not set."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str | None:
    """Return the known name that is nearest to a wrong one, or ``None`` if none is near."""
    return next(iter(difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.7)), None)
