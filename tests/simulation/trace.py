"""Print a history, event by event: ``python -m tests.simulation.trace SEED``."""

from __future__ import annotations

import sys
from typing import Any

from .plans import Plan, draw_plan
from .world import World

__all__ = ["trace"]

_QUIET = ("Log", "ProcessChanged", "WatchMemory", "WatchStalls")


def trace(plan: Plan) -> list[str]:
    """Return a line for each event of a history, with what the core has done, and how it ended."""
    world = World(plan)
    lines: list[str] = []
    handle = world.core.handle

    def noting(event: Any, now: float) -> list[Any]:
        lines.append(f"{now:9.4f} {event}"[:230])
        effects = handle(event, now)
        lines.extend(f"             {effect}"[:230] for effect in effects if type(effect).__name__ not in _QUIET)
        return effects

    world.core.handle = noting  # type: ignore[method-assign]
    try:
        world.run()
    except Exception as error:
        lines.append(f"{type(error).__name__}: {error}")
    return lines


if __name__ == "__main__":
    print("\n".join(trace(draw_plan(int(sys.argv[1])))))
