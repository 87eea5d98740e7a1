"""Judgement of a run. Pure: what was seen are arguments."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .load import Call

__all__ = ["MOST_SERIES", "OF_SPEED", "Seen", "faults"]

MOST_SERIES = 300
MEMORY = 300.0
"""Seconds for which an alert on a rate fires on: its expression looks back so far."""
FULL, LOST = "GreenroomCallsAreTurnedAway", "GreenroomAZygoteWasLost"
"""The alerts that are meant."""
OF_SPEED = {"GreenroomStartsAreSlow", "GreenroomASessionIsStuck"}
"""Alerts that a machine causes which is busy with something else."""
ENDS = {False: {"succeeded, completed"}, True: {"cancelled, cancelled", "succeeded, completed"}}
"""Ends that a call may have, by whether it is cancelled: a call may return before it hears of that."""


@dataclass
class Seen:
    """What a run has seen. Times are seconds since the epoch."""

    interval: float
    """Seconds from one scrape to the next, and from one evaluation of the rules to the next."""
    calls: list[Call] = field(default_factory=list)
    full: tuple[float, float] = (0.0, 0.0)
    """When all places were taken."""
    zygote_lost: float = math.inf
    reloads: list[int] = field(default_factory=list)
    """Statuses of the answers."""
    firing: dict[str, list[float]] = field(default_factory=dict)
    """For each alert that fired: the evaluations at which it did."""
    panels: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """For each panel and each of its expressions: the values at the end."""
    series: float = math.inf
    """Most series of a scrape."""
    exit_code: int | None = None
    warnings: list[str] = field(default_factory=list)
    """Lines of the worker's log that are warnings or errors."""


def faults(seen: Seen, *, is_busy: bool = False) -> list[str]:
    """Return what was wrong, in sentences. ``is_busy``: the machine was busy with something else."""
    return [
        *_of_alerts(seen, is_busy),
        *_of_calls(seen, is_busy),
        *_of_panels(seen.panels),
        *([] if seen.series <= MOST_SERIES else [f"a scrape had {seen.series:g} series; {MOST_SERIES} are allowed"]),
        *(f"a reload was answered by {status}" for status in seen.reloads if status != 200),
        *([] if len(seen.reloads) == 2 else [f"there were {len(seen.reloads)} reloads and not 2"]),
        *([] if seen.exit_code == 0 else [f"the worker ended with exit code {seen.exit_code}"]),
    ]


def _of_alerts(seen: Seen, is_busy: bool) -> list[str]:
    slack = 3 * seen.interval  # a scrape, an evaluation, and one of them late
    meant = {
        FULL: [(seen.full[0], seen.full[1] + MEMORY + slack), *([_new_zygote(seen)] if is_busy else [])],
        LOST: [(seen.zygote_lost, math.inf)],
    }
    found = [f"{name} did not fire" for name in meant if name not in seen.firing]
    for name, times in seen.firing.items():
        wrong = [at for at in times if not any(begin <= at <= end for begin, end in meant.get(name, ()))]
        if wrong and not (is_busy and name in OF_SPEED):
            found.append(f"{name} fired without a cause, {len(wrong)} times from {_clock(wrong[0])} on")
    return found


def _new_zygote(seen: Seen) -> tuple[float, float]:
    """Return when calls may be rejected for want of a zygote: until a slow machine has replaced it, and a while on."""
    return seen.zygote_lost, seen.zygote_lost + 30.0 + MEMORY


def _of_calls(seen: Seen, is_busy: bool) -> list[str]:
    found = []
    for call in seen.calls:
        # A call that comes while the places become free may still find none.
        may_be_full = seen.full[0] <= call.at <= seen.full[1] + 2 * seen.interval
        if call.answer != "accepted":
            has_no_zygote = is_busy and call.answer == "warming" and 0 <= call.at - seen.zygote_lost <= 30
            if not (call.answer == "full" and may_be_full) and not has_no_zygote:
                found.append(f"{call.id} at {_clock(call.at)}: {call.answer}")
        elif call.end not in ENDS[call.is_cancelled]:
            found.append(f"{call.id} at {_clock(call.at)} ended as {call.end}")
    ends = Counter(call.end for call in seen.calls)
    found += [f"no call ended as {end}" for end in ("succeeded, completed", "cancelled, cancelled") if not ends[end]]
    return found


def _of_panels(panels: Mapping[str, Mapping[str, list[float]]]) -> list[str]:
    found = [] if panels else ["the dashboard has no panels"]
    for title, expressions in panels.items():
        for expression, values in expressions.items():
            if not any(math.isfinite(value) for value in values):
                found.append(f"the panel {title!r} has no data at the end: {expression}")
    return found


def _clock(at: float) -> str:
    return f"{at:.1f}"
