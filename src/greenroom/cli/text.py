"""Texts that commands print: tables, lists of facts, JSON, and harmless forms of foreign texts. Pure."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ..clean_text import harmless, one_line

__all__ = ["as_json", "as_short_json", "clock", "duration", "facts", "harmless", "moment", "one_line", "table"]

NOTHING = "-"


def as_json(shown: Any) -> str:
    # json does not escape DEL, the only control character that JSON allows in a string.
    return json.dumps(shown, indent=2, allow_nan=False).replace("\x7f", "\\u007f")


def as_short_json(shown: Any) -> str:
    """Return JSON in one line."""
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table. Each column is as wide as its widest cell. ``None`` is shown as a dash."""
    cells = [list(head), *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def facts(items: Iterable[tuple[str, object]]) -> str:
    """Return names and values, one pair in each line. Pairs with the value ``None`` are left out."""
    known = [(name, _cell(value)) for name, value in items if value is not None]
    width = max(len(name) for name, _ in known)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in known)


def duration(seconds: float) -> str:
    """Return a short text for a duration: ``0.8 s``, ``42 s``, ``3m07s``, ``2h05m``."""
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def clock(at: float) -> str:
    """Return the local time of day for seconds since the epoch."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def moment(at: float) -> str:
    """Return local date and time for seconds since the epoch, with the offset from UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))


def _cell(value: object) -> str:
    return NOTHING if value is None else one_line(str(value))
