"""Labels of a job: what its source calls it, such as the room of a call. Pure.

They are texts of strangers, and stand in the log, in events, reports and metrics of many jobs: so each is one short
line without control characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from ..texts import one_line

__all__ = ["Labels", "label_text", "tidy_labels"]

Labels = Mapping[str, str]

MOST_LABELS = 8
LONGEST_NAME, LONGEST_TEXT = 32, 256
"""Characters."""


def tidy_labels(labels: Labels | None) -> dict[str, str]:
    """Return the labels as they are kept; those that are empty are left out. Done twice, it changes nothing more."""
    known = ((name, text) for name, text in (labels or {}).items() if text)
    return {_cut(name, LONGEST_NAME): label_text(text) for name, text in islice(known, MOST_LABELS)}


def label_text(text: str) -> str:
    """Return a label's text as it is kept."""
    return _cut(text, LONGEST_TEXT)


def _cut(text: str, limit: int) -> str:
    shown = one_line(text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
