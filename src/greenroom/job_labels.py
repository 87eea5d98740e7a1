"""Labels of a job: names that its source has for it, such as the room of a call. Pure.

Labels come from strangers and appear in the log, in events, in reports and in metrics. So each label is one short line
without control characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from .clean_text import one_line

__all__ = ["Labels", "label_text", "tidy_labels"]

Labels = Mapping[str, str]

MOST_LABELS = 8
LONGEST_NAME, LONGEST_TEXT = 32, 256
"""Most characters of a label's name, and of its text."""


def tidy_labels(labels: Labels | None) -> dict[str, str]:
    """Return the labels in their kept form, without empty ones. A second call changes nothing more."""
    if not labels:
        return {}
    known = ((name, text) for name, text in labels.items() if text)
    return {_cut(name, LONGEST_NAME): label_text(text) for name, text in islice(known, MOST_LABELS)}


def label_text(text: str) -> str:
    """Return a label's text in its kept form: one line of at most :data:`LONGEST_TEXT` characters."""
    return _cut(text, LONGEST_TEXT)


def _cut(text: str, limit: int) -> str:
    shown = one_line(text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
