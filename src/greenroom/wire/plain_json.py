"""JSON for the wire, also when an app replaces ``json.dumps`` or methods of the encoder.

Many apps use a faster library in their place. Data between processes must keep its form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["decoded", "decoded_with", "encoded", "encoded_for_people", "encoded_with", "not_plain"]


def not_plain(o: object) -> TypeError:
    """Return the error for a value that JSON cannot hold."""
    return TypeError(f"Object of type {type(o).__name__} is not JSON serializable")


class _Encoder(json.JSONEncoder):
    # Bind the methods at import: an app may later replace those of the base class.
    encode = json.JSONEncoder.encode
    iterencode = json.JSONEncoder.iterencode

    def default(self, o: object) -> NoReturn:
        raise not_plain(o)


class _Decoder(json.JSONDecoder):
    decode = json.JSONDecoder.decode
    raw_decode = json.JSONDecoder.raw_decode


_decoder = _Decoder()

encoded = _Encoder(separators=(",", ":")).encode
"""Encode to ASCII without blanks. Lone surrogates, which UTF-8 cannot hold, survive as escapes."""

encoded_for_people = _Encoder(ensure_ascii=False).encode


def decoded(text: bytes) -> Any:
    """Decode UTF-8 JSON. Raises ``ValueError`` for other text, and ``RecursionError`` if it is nested too deeply."""
    return _decoder.decode(text.decode("utf-8", "surrogatepass"))


def encoded_with(replaced: Callable[[object], object], value: object) -> str:
    """Encode as :data:`encoded` does. ``replaced`` returns a substitute for a value that JSON cannot hold."""
    return _Encoder(separators=(",", ":"), default=replaced).encode(value)


def decoded_with(restored: Callable[[dict[str, Any]], object], text: bytes) -> Any:
    """Decode as :func:`decoded` does. ``restored`` returns the value for each JSON object."""
    return _Decoder(object_hook=restored).decode(text.decode("utf-8", "surrogatepass"))
