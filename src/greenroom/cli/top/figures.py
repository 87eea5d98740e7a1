"""Small sums. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["percentile", "shares"]


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value that this share of all, sorted, is not above; ``None`` if there are none."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None


def shares(counts: Sequence[int], room: int) -> tuple[list[int], int]:
    """So many marks for each count, that all fit into ``room``; and how many one mark stands for.

    What is there at all has at least one mark.
    """
    each = 1
    while sum(marks := [-(-count // each) for count in counts]) > room and each < sum(counts):
        each += 1
    return marks, each
