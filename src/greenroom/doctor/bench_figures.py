"""What a bench has measured, and the few statistics over it. Pure. Times are seconds, memory is MiB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BARS", "Bar", "BenchFigures", "Burst", "MemoryPoint", "Spread", "histogram", "spread"]

BARS = 12
"""Of a histogram, up to the 95th percentile: one outlier in few values must not flatten all others."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Values in five figures; percentiles are by nearest rank, so each is one that was measured."""

    count: int
    least: float
    p50: float
    p90: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram: from ``low``, below ``high``; the last one includes it."""

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Burst:
    """Many sessions at once, on the idle processes that there are."""

    sessions: int
    idle: int
    start: Spread | None
    """From the order until the acknowledgement."""
    refill_seconds: float | None
    """From the burst until as many processes were idle as before; ``None`` if they were not in time."""
    failed: int
    running_private_mb: float | None
    """What a session has to itself while it runs, median; ``None`` if none ran long enough."""


@dataclass(frozen=True, slots=True)
class MemoryPoint:
    """So many idle processes, and what they take."""

    idle: int
    private_mb: float
    """Of one process, median."""
    total_mb: float
    """PSS of the zygote and all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFigures:
    """Everything that was measured."""

    app: str
    seconds: float
    launch: Spread | None
    """From the claim of an idle process until it has acknowledged the session."""
    histogram: tuple[Bar, ...]
    refill: Spread | None
    """From a claim until there are as many idle processes again."""
    cold: int
    """Launches that found no idle process, and do not count above."""
    burst: Burst | None
    memory: tuple[MemoryPoint, ...]
    complaints: tuple[str, ...]
    """Launches that failed and sessions that ended by themselves in an error, each cause once."""


def spread(values: Sequence[float]) -> Spread | None:
    """``None`` of no values."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p90, p99 = (_rank(ordered, percent) for percent in (50, 90, 99))
    return Spread(len(ordered), ordered[0], p50, p90, p99, ordered[-1])


def histogram(values: Sequence[float], bars: int = BARS) -> tuple[Bar, ...]:
    """Bars of the same width from the least value to the 95th percentile; what lies beyond is in one more."""
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
