"""The few statistics used here, over plain lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

__all__ = ["median", "percentile", "spread"]


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: always one of the values that was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def spread(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
