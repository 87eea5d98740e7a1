"""CPU time of :meth:`PoolCore.handle`, by kind of event: ``python -m tests.simulation.times --histories 2000``.

Histories are lived first, and their events kept. Then each is handled anew, once, by a core without a world around it.
"""

from __future__ import annotations

import argparse
import gc
import sys
from time import thread_time_ns
from typing import Any

from greenroom.pool.core.core import PoolCore
from greenroom.pool.core.effective_options import EffectiveOptions

from .plans import Plan, draw_plan
from .world import World

__all__ = ["Times", "main", "recorded"]


class Times:
    """Measures each call while it is entered."""

    def __init__(self) -> None:
        self.by_event: dict[str, list[int]] = {}

    def __enter__(self) -> Times:
        self._handle = handle = PoolCore.handle
        by_event = self.by_event

        def measured(core: PoolCore, event: Any, now: float) -> list[Any]:
            begin = thread_time_ns()
            effects = handle(core, event, now)
            end = thread_time_ns()
            # To read the clock twice takes a part of what is measured.
            by_event.setdefault(type(event).__name__, []).append(2 * end - begin - thread_time_ns())
            return effects

        PoolCore.handle = measured  # type: ignore[method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        PoolCore.handle = self._handle  # type: ignore[method-assign]

    def summary(self) -> str:
        """Return a line for all events, and one for each kind."""
        everything = sorted(time for times in self.by_event.values() for time in times)
        lines = [f"handle(): {_figures(everything)}"]
        lines += [f"  {name}: {_figures(sorted(times))}" for name, times in sorted(self.by_event.items())]
        return "\n".join(lines)


def _figures(times: list[int]) -> str:
    p50, p99 = (times[int(len(times) * part)] / 1000 for part in (0.5, 0.99))
    return f"p50 {p50:.1f} µs, p99 {p99:.1f} µs, of {len(times)} calls"


def recorded(plan: Plan) -> list[tuple[Any, float]]:
    """Return the events of a history, each with its time."""
    world = World(plan)
    events: list[tuple[Any, float]] = []
    handle = world.core.handle

    def noting(event: Any, now: float) -> list[Any]:
        events.append((event, now))
        return handle(event, now)

    world.core.handle = noting  # type: ignore[method-assign]
    world.run()
    return events


def main(arguments: list[str] | None = None) -> int:
    """Print the times of many histories."""
    parser = argparse.ArgumentParser(prog="times")
    parser.add_argument("--histories", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    plans = [draw_plan(options.seed * 10_000_000 + number) for number in range(options.histories)]
    histories = [(plan, recorded(plan)) for plan in plans]
    gc.collect()
    gc.freeze()  # what is kept here is not what the core has to look after
    times = Times()
    with times:
        for plan, events in histories:
            core = PoolCore(EffectiveOptions(plan.options, plan.fixed), offset=1_700_000_000.0)
            for event, now in events:
                core.handle(event, now)
    print(times.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
