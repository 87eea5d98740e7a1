"""Payloads: plain data across a process boundary, as JSON or bytes. Never pickle.

A payload is opaque to the supervisor. The caller's side encodes metadata, and the reader of a result decodes it. So a
result of 50 MB does not delay the start of another job.
"""

from __future__ import annotations

from typing import Any

from ..errors import PayloadError
from . import plain_json

__all__ = ["MAX_BYTES", "as_json", "decode", "encode", "from_json"]

MAX_BYTES = 64 * 1024 * 1024

_JSON = b"j"
_BYTES = b"b"


def encode(value: Any) -> bytes:
    """Encode plain data. Raises :class:`PayloadError` for any other data, and for more than 64 MiB."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _bounded(_BYTES + bytes(value))
    try:
        text = plain_json.encoded(value)
    except RecursionError:
        raise PayloadError("data is nested too deeply, or contains itself") from None
    except (TypeError, ValueError) as error:
        raise PayloadError(f"not plain data (JSON values or bytes): {error}") from None
    return _bounded(_JSON + text.encode("ascii"))


def decode(data: bytes) -> Any:
    """Decode the bytes that :func:`encode` returned. Raises :class:`PayloadError`."""
    tag, content = data[:1], data[1:]
    if tag == _BYTES:
        return content
    if tag != _JSON:
        raise PayloadError(f"unknown payload tag {tag!r}")
    try:
        return plain_json.decoded(content)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"payload is not valid JSON: {error}") from None


def from_json(text: bytes) -> bytes:
    """Return the payload of a JSON text that the caller has checked. Raises :class:`PayloadError` above 64 MiB."""
    return _bounded(_JSON + text)


def as_json(data: bytes) -> bytes | None:
    """Return the JSON text of a payload, or ``None`` if the payload is bytes."""
    return data[1:] if data[:1] == _JSON else None


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise PayloadError(f"{len(data)} bytes of data; at most {MAX_BYTES} can be passed")
    return data
