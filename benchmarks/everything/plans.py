"""What a job is to do, and the end that follows if nothing else happens to it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

__all__ = ["JOB_TIMEOUT", "PLANS", "Plan", "draw"]

JOB_TIMEOUT = 16.0
"""Seconds; longer than any job takes that is not meant to miss it, on a busy machine too."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A kind of job. Its app writes ``end`` into the ledger right before it does what ends it."""

    reason: str
    outcome: str
    exit_code: int | None = None
    signal: int | None = None
    leaves_processes: bool = False
    has_stack: bool = False
    """The report says where it stood."""
    is_refused: bool = False
    """The app's request function turns it down."""
    weight: int = 0
    """How often it is started, of all jobs by HTTP."""


PLANS: dict[str, Plan] = {
    "return": Plan("completed", "succeeded", weight=30),
    "family": Plan("completed", "succeeded", leaves_processes=True, weight=4),
    "raise": Plan("raised", "failed", weight=6),
    "sys.exit": Plan("exited", "failed", exit_code=3, weight=4),
    "os._exit": Plan("exited", "failed", exit_code=4, weight=4),
    "crash": Plan("signaled", "killed", signal=11, weight=4),
    "cancelled": Plan("completed", "succeeded", weight=10),
    "overstay": Plan("job_timeout", "killed", weight=2),
    "stall": Plan("stalled", "killed", has_stack=True, weight=2),
    "hold the GIL": Plan("stalled", "killed", has_stack=True, weight=1),
    "eat memory": Plan("memory_limit", "killed", weight=2),
    "hang at the end": Plan("shutdown_timeout", "killed", weight=2),
    "refused": Plan("", "", is_refused=True, weight=3),
    "room": Plan("completed", "succeeded"),
}
"""``cancelled`` would return if it were not cancelled; ``room`` is a LiveKit agent."""


def draw(chance: random.Random, number: int) -> tuple[str, dict[str, Any], float | None]:
    """Draw a job: the plan's name, the job's metadata, and after how many seconds it is cancelled, if at all."""
    names = [name for name, plan in PLANS.items() if plan.weight]
    name = chance.choices(names, [PLANS[name].weight for name in names])[0]
    seconds = chance.choice((0.0, 0.01, 0.1, 0.5, 1.0, 2.0, 4.0))
    cancel_after = None
    if name == "cancelled":
        cancel_after = chance.uniform(0.0, 1.5 * seconds)
        if chance.random() < 0.3:
            seconds = 6.0
    return name, {"plan": name, "seconds": seconds, "nonce": f"{number}-{chance.getrandbits(40):010x}"}, cancel_after
