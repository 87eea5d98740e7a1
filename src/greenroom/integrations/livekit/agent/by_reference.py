"""Objects as plain data: functions and classes by name, and other objects by the calls that a copy would make.

An object's ``__reduce_ex__`` returns these calls, and pickle writes them, too. So this module can hand over each
object that LiveKit's own worker can hand to its processes.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

from ....errors import AppLoadError
from .references import defined_at, reference_to, resolve

__all__ = ["NotImportable", "made", "plain"]

_DEEPEST = 30
_SCALARS = (type(None), bool, int, str)
_CONTAINERS: dict[type, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
_MAKERS: dict[str, Callable[[Iterable[Any]], Any]] = {kind.__name__: kind for kind in _CONTAINERS}
_FUNCTIONS = (FunctionType, BuiltinFunctionType, type)


class NotImportable(AppLoadError):
    """Error for an object that exists, or has a part that exists, in this process alone."""


def plain(value: Any, is_shared: Callable[[list[str]], bool], depth: int = 0) -> Any:
    """Take a value apart. ``is_shared`` returns whether other processes find the same object by a reference.

    Raises :class:`NotImportable`.
    """
    if type(value) in _SCALARS or (type(value) is float and math.isfinite(value)):
        return value
    if depth > _DEEPEST:
        raise NotImportable("it refers to itself, or is nested too deeply")

    def part(inner: Any) -> Any:
        return plain(inner, is_shared, depth + 1)

    kind = _CONTAINERS.get(type(value))
    if kind is not None:
        return {"kind": kind, "items": [part(item) for item in value]}
    if type(value) is dict:
        return {"kind": "dict", "items": [[part(key), part(item)] for key, item in value.items()]}
    if type(value) is float:
        return {"kind": "float", "text": repr(value)}
    if type(value) is bytes:
        return {"kind": "bytes", "text": base64.b64encode(value).decode()}
    reference = _reference(value, is_shared)
    if reference is not None:
        return {"kind": "reference", "to": reference, "defined": defined_at(value)}
    return _copied(value, part)


def _reference(value: Any, is_shared: Callable[[list[str]], bool]) -> list[str] | None:
    if not callable(value):
        return None
    try:
        reference = reference_to(value, "")
    except AppLoadError:
        reference = None
    if reference is not None and is_shared(reference):
        return reference
    if isinstance(value, _FUNCTIONS) and getattr(value, "__self__", None) is None:
        place = defined_at(value)
        of = f" ({place})" if place else ""
        raise NotImportable(f"{getattr(value, '__qualname__', value)!r}{of} exists in the process of the script alone")
    return None


def _copied(value: Any, part: Callable[[Any], Any]) -> dict[str, Any]:
    try:
        reduced = value.__reduce_ex__(2)
    except Exception as error:  # a class of the user's may raise anything
        raise NotImportable(f"a {type(value).__name__} exists in the process of the script alone: {error}") from None
    if isinstance(reduced, str):  # the text is the name of a global object
        raise NotImportable(f"a {type(value).__name__} exists in the process of the script alone")
    function, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    return {
        "kind": "copy",
        "by": part(function),
        "arguments": part(tuple(arguments)),
        "state": None if state is None else part(state),
        "items": [part(item) for item in items or ()],
        "pairs": [[part(key), part(item)] for key, item in pairs or ()],
    }


def made(data: Any, role: str) -> Any:
    """Put a value together.

    Raises :class:`AppLoadError` for a reference that leads nowhere in this process, and any error of a constructor.
    """
    if not isinstance(data, Mapping):
        return data
    kind = data["kind"]
    if kind in _MAKERS:
        return _MAKERS[kind](made(item, role) for item in data["items"])
    if kind == "dict":
        return {made(key, role): made(item, role) for key, item in data["items"]}
    if kind == "float":
        return float(data["text"])
    if kind == "bytes":
        return base64.b64decode(data["text"])
    if kind == "reference":
        return resolve(data["to"], role)
    return _copy(data, role)


def _copy(data: Mapping[str, Any], role: str) -> Any:
    value = made(data["by"], role)(*made(data["arguments"], role))
    if data["state"] is not None:
        _set_state(value, made(data["state"], role))
    for item in data["items"]:
        value.append(made(item, role))
    for key, item in data["pairs"]:
        value[made(key, role)] = made(item, role)
    return value


def _set_state(value: Any, state: Any) -> None:
    if hasattr(value, "__setstate__"):
        value.__setstate__(state)
        return
    values, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    for name, attribute in {**(values or {}), **(slots or {})}.items():
        object.__setattr__(value, name, attribute)  # this works for a frozen class, too
