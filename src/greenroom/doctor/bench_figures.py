"""Figures of a bench, and the statistics over them. Pure. Times are seconds, memory is MiB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BARS", "Bar", "BenchFigures", "Burst", "MemoryPoint", "Spread", "histogram", "spread"]

BARS = 12
"""Bars of a histogram, up to the 95th percentile. So one outlier among few values does not flatten all other bars."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Summary of values. Percentiles are by nearest rank, so each percentile is a measured value."""

    count: int
    least: float
    p50: float
    p90: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Bar:
    """Bar of a histogram: values from ``low`` to below ``high``. The last bar includes ``high``."""

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Burst:
    """Result of many launches at the same time."""

    sessions: int
    idle: int
    """Number of idle processes before the burst."""
    start: Spread | None
    """Times from the launch to the acknowledgement."""
    refill_seconds: float | None
    """Time from the burst until as many processes were idle as before; ``None`` if that took too long."""
    failed: int
    running_private_mb: float | None
    """Median private memory of a running session; ``None`` if none ran long enough."""


@dataclass(frozen=True, slots=True)
class MemoryPoint:
    """Memory of a number of idle processes."""

    idle: int
    """Number of idle processes."""
    private_mb: float
    """Median private memory of one process."""
    total_mb: float
    """Memory (PSS) of the zygote and all idle processes together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFigures:
    """All figures of a bench."""

    app: str
    seconds: float
    launch: Spread | None
    """Times from the claim of an idle process until the process has acknowledged the session."""
    histogram: tuple[Bar, ...]
    refill: Spread | None
    """Times from a launch until as many processes are idle again."""
    cold: int
    """Number of launches that found no idle process. The figures above leave them out."""
    burst: Burst | None
    memory: tuple[MemoryPoint, ...]
    complaints: tuple[str, ...]
    """Causes of failed launches and of sessions that ended in an error, each cause once."""


def spread(values: Sequence[float]) -> Spread | None:
    """Return the summary of values, or ``None`` if there are no values."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p90, p99 = (_rank(ordered, percent) for percent in (50, 90, 99))
    return Spread(len(ordered), ordered[0], p50, p90, p99, ordered[-1])


def histogram(values: Sequence[float], bars: int = BARS) -> tuple[Bar, ...]:
    """Return bars of equal width from the least value to the 95th percentile. One more bar has all larger values."""
    if not values:
        return ()
    ordered = sorted(values)
    low, high = ordered[0], _rank(ordered, 95)
    width = (high - low) / bars
    if width == 0:
        edges = [low, high]
    else:
        edges = [low + width * number for number in range(bars)] + [high]
    if ordered[-1] > high:
        edges.append(ordered[-1])
    return tuple(_bar(ordered, edges, number) for number in range(len(edges) - 1))


def _bar(values: Sequence[float], edges: Sequence[float], number: int) -> Bar:
    low, high = edges[number], edges[number + 1]
    is_last = number == len(edges) - 2
    return Bar(low, high, sum(low <= value < high or (is_last and value == high) for value in values))


def _rank(ordered: Sequence[float], percent: float) -> float:
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
