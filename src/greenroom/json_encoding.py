"""Encoding of values as strict JSON, for the worker. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from .clean_text import clean

__all__ = ["encode"]

_encode = msgspec.json.Encoder().encode


def encode(value: Any) -> bytes:
    """Return a value as JSON. NaN becomes ``null``, and half a surrogate pair becomes an escape."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        # Rare: the name of the app's file is not UTF-8, or an app or a child has sent text that is not valid.
        return _encode(_cleaned(msgspec.to_builtins(value, builtin_types=(Raw,))))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): _cleaned(one) for key, one in value.items()}
    return [_cleaned(one) for one in value] if isinstance(value, (list, tuple)) else value
