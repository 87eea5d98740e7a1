"""Service of an app: one process that all jobs of a generation call."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import GreenroomError

__all__ = ["AppService", "checked"]

Load = Callable[[], Callable[..., Any]]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,47}")
"""Form of a service's name. The name becomes a part of a socket's address, which has at most 107 bytes."""


@dataclass(frozen=True, slots=True)
class AppService:
    """Registered service: its name, its load function and its limits. :meth:`App.service` explains them."""

    name: str
    load: Load
    """Function that runs once in the process of the service, and returns the function that answers calls."""
    concurrency: int
    timeout: float
    queue: int


def checked(service: AppService) -> AppService:
    """Return the service if it is valid, else raise :class:`GreenroomError`."""
    name, load = service.name, service.load
    if not callable(load):
        raise GreenroomError(f"@app.service takes a function, not {load!r}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise GreenroomError(
            f"@app.service: {name!r} cannot be the name of a service. Use up to 48 letters, digits, '_', '-', '.'"
        )
    if inspect.iscoroutinefunction(load) or inspect.isasyncgenfunction(load) or inspect.isgeneratorfunction(load):
        raise GreenroomError(
            f"@app.service: {_named(load)} loads the service {name!r} and must be a plain function. The function that "
            f"it returns may be async"
        )
    if not _takes_nothing(load):
        raise GreenroomError(
            f"@app.service: {_named(load)} loads the service {name!r} and must work without arguments. "
            f"The function that it returns may take arguments"
        )
    _check_number(name, "concurrency", service.concurrency, int, 1)
    _check_number(name, "queue", service.queue, int, 0)
    _check_number(name, "timeout", service.timeout, (int, float), 0.001)
    return service


def _check_number(name: str, option: str, value: Any, kind: Any, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value) or value < least:
        what = "a whole number" if kind is int else "a number of seconds"
        raise GreenroomError(
            f"@app.service: {option} of the service {name!r} is {value!r}; it must be {what} of at least {least:g}"
        )


def _takes_nothing(fn: Callable[..., Any]) -> bool:
    try:
        inspect.signature(fn).bind()
    except TypeError:
        return False
    except ValueError:  # a builtin whose signature is not known
        return True
    return True


def _named(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", repr(fn))
