"""Files of prometheus_client's multiprocess mode, as bytes. Jobs write these files, so their content is not trusted.

A file begins with the number of bytes in use as an int32, and 4 bytes of padding. Each figure consists of the length of
its key as an int32, the key, padding, the value, and its time. The value and the time are doubles. A key is a JSON list
of metric, sample, labels and help. See prometheus_client's ``mmap_dict``.
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from ...clean_text import clean

__all__ = ["ENDED_KINDS", "KINDS", "LARGEST", "Figure", "Figures", "SpoiltFile", "packed", "read", "unpacked"]

LARGEST = 32 * 1024 * 1024
"""Largest file that is read, in bytes."""
LONGEST_KEY = 16 * 1024

Figure = tuple[float, float]
"""Value, and its time in seconds since 1970. The time is 0 if it is not kept."""
Figures = dict[str, Figure]
"""Figures by key."""

_HEAD = struct.Struct("i4x")
_LENGTH = struct.Struct("i")
_FIGURE = struct.Struct("dd")
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class SpoiltFile(Exception):
    """File of a job with a wrong type, size or content."""


def _sum(before: Figure, now: Figure) -> Figure:
    return before[0] + now[0], 0.0


def _latest(before: Figure, now: Figure) -> Figure:
    return max(before, now, key=lambda figure: figure[1])


ENDED_KINDS: Mapping[str, Callable[[Figure, Figure], Figure]] = {
    "counter": _sum,
    "histogram": _sum,
    "summary": _sum,
    "gauge_sum": _sum,
    "gauge_max": max,
    "gauge_min": min,
    "gauge_mostrecent": _latest,
}
"""Kinds of files that are kept after the end of a process. Each has the function that adds one figure to another."""
_LIVE_KINDS = ("all", "liveall", "livesum", "livemax", "livemin", "livemostrecent")
KINDS = frozenset(ENDED_KINDS) | {f"gauge_{mode}" for mode in _LIVE_KINDS}


def read(path: Path) -> bytes:
    """Return the content of a plain file of at most ``LARGEST`` bytes. Raises ``OSError`` and :class:`SpoiltFile`.

    The file is read and not mapped: if a job truncated a mapped file, SIGBUS would end this process. A pipe would block
    this process, so the file is opened with ``O_NONBLOCK``.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SpoiltFile("it is not a regular file")
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise SpoiltFile(f"it has more than {LARGEST} bytes")
    return data


def unpacked(data: bytes, kind: str) -> Figures:
    """Return the figures in a file of this kind. Raises :class:`SpoiltFile` if the bytes are malformed."""
    if not data:
        return {}  # a file that was created just now
    try:
        return _unpacked(data, kind)
    except (struct.error, ValueError, RecursionError, KeyError) as error:
        raise SpoiltFile(f"{type(error).__name__}: {error}") from None


def _unpacked(data: bytes, kind: str) -> Figures:
    (used,) = _HEAD.unpack_from(data)
    if used > len(data):
        raise SpoiltFile("it ends too early")
    figures: Figures = {}
    at = _HEAD.size
    while at < used:
        (length,) = _LENGTH.unpack_from(data, at)
        if not 0 < length <= LONGEST_KEY:
            raise SpoiltFile(f"a key has {length} bytes")
        at += _LENGTH.size
        key = _checked(data[at : at + length].decode(), kind)
        at += length + _padding(length)
        value, time = _FIGURE.unpack_from(data, at)
        figures[key] = (value, time)
        at += _FIGURE.size
    return figures


def _checked(key: str, kind: str) -> str:
    """Return the key without characters that Prometheus' text format cannot hold. Raises :class:`SpoiltFile`."""
    match json.loads(key):
        case [str(metric), str(sample), dict(labels), str(text)]:
            names_are_right = all(map(_METRIC.fullmatch, (metric, sample))) and all(map(_LABEL.fullmatch, labels))
            texts = [value for value in labels.values() if isinstance(value, str)]
            if names_are_right and len(texts) == len(labels):
                if kind == "histogram" and "le" in labels:
                    float(labels["le"])
                tidy = {name: clean(value) for name, value in labels.items()}
                return json.dumps([metric, sample, tidy, clean(text)], sort_keys=True)
    raise SpoiltFile("a key does not have the form of prometheus_client")


def packed(figures: Figures) -> bytes:
    """Return the bytes of a file with these figures."""
    parts = [b""]
    for key, figure in figures.items():
        encoded = key.encode()
        parts += [_LENGTH.pack(len(encoded)), encoded, b" " * _padding(len(encoded)), _FIGURE.pack(*figure)]
    parts[0] = _HEAD.pack(_HEAD.size + sum(map(len, parts)))
    return b"".join(parts)


def _padding(length: int) -> int:
    return 8 - (length + _LENGTH.size) % 8
