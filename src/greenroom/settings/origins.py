"""Where the value of a setting comes from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Given", "Layer", "Origin", "did_you_mean"]


@dataclass(frozen=True, slots=True)
class Origin:
    """A default, or the place where somebody has set it."""

    kind: Literal["default", "app", "file", "environment", "flag"]
    name: str
    """The command, the app's own words, the file, variable or flag."""
    line: int | None = None

    def __str__(self) -> str:
        if self.kind == "default":
            return f"default of {self.name}"
        return self.name if self.line is None else f"{self.name}, line {self.line}"


@dataclass(frozen=True, slots=True)
class Given:
    """A value of the right type, and who says so."""

    value: Any
    origin: Origin


Layer = dict[str, Given]
"""What one origin sets, by the setting's name."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str | None:
    """The right name that is nearest to a wrong one, if one is near."""
    return next(iter(difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.7)), None)
