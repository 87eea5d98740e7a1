"""Live one history, and say what came of it."""

from __future__ import annotations

import traceback
from typing import NamedTuple

from .oracles import Violation
from .plans import Plan
from .world import World

__all__ = ["Result", "live"]


class Result(NamedTuple):
    """What a history came to."""

    plan: Plan
    events: int
    oracle: str
    """Empty, or the oracle that does not hold."""
    text: str
    reasons: set[str]


def live(plan: Plan) -> Result:
    """Live one history."""
    world = World(plan)
    oracle = text = ""
    try:
        world.run()
    except Violation as violation:
        oracle, text = violation.oracle, str(violation)
    except Exception as error:  # the core must raise nothing, whatever happens
        frame = traceback.extract_tb(error.__traceback__)[-1]
        oracle = f"{type(error).__name__} in {frame.name}"
        text = f"{oracle}: {error} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}), after {world.oracles.event}"
    return Result(plan, world.events, oracle, text, world.oracles.reasons)
