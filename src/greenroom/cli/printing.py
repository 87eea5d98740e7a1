"""Output of commands: for people on a terminal, as plain lines elsewhere, or as JSON."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from ..clean_text import clean
from ..command_exit_codes import ExitCode
from ..errors import GreenroomError
from .text import as_json as text_as_json
from .text import harmless

__all__ = ["Failure", "as_json", "echo", "print_json", "working"]


def echo(text: str, *, err: bool = False) -> None:
    """Print a text for people. Parts of the text may come from an app or a caller, so the text is made harmless."""
    typer.echo(harmless(text), err=err)


@contextmanager
def working(on: str) -> Iterator[None]:
    """Show the current work on a terminal. Without a terminal, show nothing."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # imported late: rich would slow down each command
    from rich.text import Text

    # A Text and not a string, since rich would read "[bold]" in the name of an app as markup.
    with Console(stderr=True).status(Text(harmless(on))):
        yield


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout. Dataclasses become objects."""
    typer.echo(text_as_json(as_json(value)))


def as_json(value: Any) -> Any:
    """Return plain data that JSON can hold.

    Infinity and paths become texts. NaN and negative infinity become ``None``.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return as_json(value._asdict())
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "infinity" if value > 0 else None
    return clean(str(value)) if isinstance(value, (str, Path)) else value


class Failure(GreenroomError):
    """Error that ends the command: the message goes to stderr, and the process exits with the code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.NEGATIVE, brief: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.brief = message if brief is None else brief
        """Message for a line that begins with the name of the worker."""
