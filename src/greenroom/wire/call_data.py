"""Encoding of plain data with buffers, for calls of a service: JSON, then the unchanged bytes of each buffer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from ..errors import PayloadError
from . import plain_json
from .payload import MAX_BYTES

__all__ = ["pack", "unpack"]

_MARK = "\0buffer"
"""Only key of an object that stands for a buffer. The value is the number of the buffer."""
_MARK_IN_JSON = '"\\u0000buffer":'
_MOST_BUFFERS = 10_000
"""Most buffers of one call: the header of a frame lists their sizes, and its length is bounded."""


def pack(value: object) -> list[bytes]:
    """Encode plain data: JSON, then the buffers. Each buffer is a snapshot, and arrives as ``bytes``.

    Raises :class:`PayloadError` for any other data, and for more than 64 MiB.
    """
    buffers: list[bytes] = []

    def placeholder(found: object) -> dict[str, int]:
        if not isinstance(found, (bytes, bytearray, memoryview)):
            raise plain_json.not_plain(found)
        buffers.append(bytes(found))  # copies a mutable buffer, which the caller may change meanwhile; not ``bytes``
        return {_MARK: len(buffers) - 1}

    try:
        text = plain_json.encoded_with(placeholder, value)
    except RecursionError:
        raise PayloadError("data is nested too deeply, or contains itself") from None
    except (TypeError, ValueError) as error:
        raise PayloadError(f"not plain data (JSON values, bytes, bytearray or memoryview): {error}") from None
    if buffers and text.count(_MARK_IN_JSON) != len(buffers):
        raise PayloadError(f"the key {_MARK!r} is reserved for buffers. Rename it in data that has a buffer")
    if len(buffers) > _MOST_BUFFERS:
        raise PayloadError(f"{len(buffers)} buffers; at most {_MOST_BUFFERS} can be passed. Join some of them")
    parts = [text.encode("ascii"), *buffers]
    size = sum(map(len, parts))
    if size > MAX_BYTES:
        raise PayloadError(f"{size} bytes of data; at most {MAX_BYTES} can be passed")
    return parts


def unpack(sizes: Sequence[int], body: memoryview) -> Any:
    """Decode the joined parts of :func:`pack`, which have these sizes in bytes. Raises :class:`PayloadError`."""
    if sum(sizes) != len(body) or not sizes:
        raise PayloadError(f"parts of {list(sizes)} bytes do not add up to {len(body)} bytes")
    text, *buffers = (bytes(body[end - size : end]) for size, end in zip(sizes, accumulate(sizes), strict=True))

    def restored(found: Mapping[str, Any]) -> object:
        return buffers[found[_MARK]] if _MARK in found else found

    try:
        return plain_json.decoded_with(restored, text) if buffers else plain_json.decoded(text)
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise PayloadError(f"invalid packed data: {error}") from None
