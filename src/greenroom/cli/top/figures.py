"""Small calculations. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["percentile", "shares", "summary"]


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the percentile at ``share`` (0 to 1) of sorted values; ``None`` if there are no values."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None


def summary(values: Iterable[float]) -> dict[str, Any]:
    """Return the number and percentiles of values."""
    ordered = sorted(values)
    return {"count": len(ordered), "p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99)}


def shares(counts: Sequence[int], room: int) -> tuple[list[int], int]:
    """Return the number of marks for each count, and the number for which one mark stands. All marks fit in ``room``.

    Each count above 0 has at least one mark, so ``room`` must not be smaller than the number of such counts.
    """
    each = 1
    while sum(marks := [-(-count // each) for count in counts]) > room and each < sum(counts):
        each += 1
    return marks, each
