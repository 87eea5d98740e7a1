"""References by which another process finds a function again, without pickle."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ....errors import AppLoadError
from ....zygote.script.script_file import import_script

__all__ = ["defined_at", "reference_to", "resolve"]

_ATTRIBUTES = (
    "_entrypoint_fnc", "_setup_fnc", "_session_end_fnc", "_simulation_end_fnc",  # of an AgentServer
    "entrypoint_fnc", "prewarm_fnc",  # of WorkerOptions
)  # fmt: skip


def reference_to(function: Any, role: str) -> list[str] | None:
    """Return the module or file of a function, and the dotted path in it; ``None`` for ``None``.

    Raises :class:`AppLoadError` for a function that exists in this process only.
    """
    if function is None:
        return None
    module = sys.modules.get(getattr(function, "__module__", None) or "__main__")
    for candidate in (module, sys.modules.get("__main__")):
        path = _path_to(function, candidate) if candidate is not None else None
        if candidate is not None and path is not None:
            return [_place_of(candidate), path]
    name = getattr(function, "__qualname__", repr(function))
    raise AppLoadError(
        f"the job processes cannot find {name} ({role}{_where(function)}): it is neither at the top level of its "
        f"module nor a function of an AgentServer there. Define it at the top level of a file, outside of any function "
        f"and of 'if __name__ == \"__main__\"'"
    )


def defined_at(function: Any) -> str:
    """Return the file and the line that define a function; an empty text for another object."""
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code is not None else ""


def resolve(reference: list[str] | None, role: str = "") -> Any:
    """Return the function of a reference. Imports its module if needed. Raises :class:`AppLoadError`."""
    if reference is None:
        return None
    place, path = reference
    module = import_script(place) if place.endswith(".py") else importlib.import_module(place)
    found = _walk(module, path)
    if found is None:
        of = f" ({role})" if role else ""
        raise AppLoadError(
            f"{place} has no {path}{of} when it is imported by the job processes; define it at the top level, "
            f"outside of 'if __name__ == \"__main__\"'"
        )
    return found


def _path_to(function: Any, module: ModuleType) -> str | None:
    return next((path for path in _candidates(function, module) if _walk(module, path) == function), None)


def _candidates(function: Any, module: ModuleType) -> Iterator[str]:
    name = getattr(function, "__qualname__", None)
    if name is not None:
        yield name
    for name, value in list(vars(module).items()):
        if value is function:
            yield name
        if type(value).__module__.startswith("livekit.agents."):
            yield from (f"{name}.{attribute}" for attribute in _ATTRIBUTES)


def _walk(module: ModuleType, path: str) -> Any:
    return functools.reduce(lambda value, name: getattr(value, name, None), path.split("."), module)  # type: ignore[arg-type, return-value]


def _place_of(module: ModuleType) -> str:
    """Return the module's name, if an import by that name leads to the same file; or else the file."""
    spec = getattr(module, "__spec__", None)
    name = spec.name if spec is not None else module.__name__
    file = getattr(module, "__file__", None)
    if name != "__main__" and _origin(name) == file:
        return str(name)
    if file is None:
        raise AppLoadError("functions of an interactive session cannot be imported by job processes; use a file")
    return str(Path(file).absolute())


def _origin(name: str) -> str | None:
    # find_spec(name) would answer from sys.modules, but another process has to find the module by its path.
    package, _, _ = name.rpartition(".")
    if package:
        spec = importlib.util.find_spec(name)
    else:
        spec = importlib.machinery.PathFinder.find_spec(name)
    return spec.origin if spec is not None else None


def _where(function: Any) -> str:
    place = defined_at(function)
    return f", {place}" if place else ""
