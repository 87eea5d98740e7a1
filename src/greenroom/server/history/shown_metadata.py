"""Choice of the metadata that operators see: all, none, or some keys. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ...clean_text import cut_end, one_line

__all__ = ["ALL", "NONE", "fields_of", "shown_metadata"]

ALL, NONE = "all", "none"
LARGEST = 64 * 1024
"""Bytes of metadata above which nothing is chosen: to read more would hold up the event loop."""
LONGEST_SHOWN = 4096
MOST_FIELDS, LONGEST_FIELD = 32, 256
DEEPEST = 3


def shown_metadata(text: bytes | None, wanted: tuple[str, ...]) -> Any:
    """Return the part of a job's metadata (JSON) that operators may see; ``None`` if there is none.

    ``wanted`` are ``all``, ``none``, or names of keys of an object. Metadata that is no object has no keys.
    """
    if text is None or NONE in wanted or len(text) > LARGEST:
        return None
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    if ALL in wanted:
        return _short(found)
    if not isinstance(found, dict):
        return None
    return _short({name: found[name] for name in wanted if name in found}) or None


def fields_of(shown: Any) -> dict[str, str]:
    """Return names and texts by which a job can be found. A key within a key is ``outer.inner``."""
    found = {}
    for name, text in _flat(shown, "", DEEPEST):
        found[name] = text
        if len(found) >= MOST_FIELDS:
            break
    return found


def _flat(value: Any, name: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and depth > 0:
        for key, one in value.items():
            yield from _flat(one, f"{name}.{key}" if name else key, depth - 1)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
        yield name or "metadata", cut_end(one_line(str(value)), LONGEST_FIELD)


def _short(value: Any) -> Any:
    """Return plain data that is small enough for a list of jobs; the beginning of its text if it is not."""
    text = msgspec.json.encode(value)
    return value if len(text) <= LONGEST_SHOWN else cut_end(text.decode("utf-8", "replace"), LONGEST_SHOWN)
