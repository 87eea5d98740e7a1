"""What a LiveKit server is told of this worker's load: counted in slots, not measured in CPU. Pure.

A server dispatches to workers that are available and whose load is below its ``target_load`` (0.7 by default), the
less loaded ones more often; and it never asks again for a room that no worker was available for. So this worker is
available as long as a session could start, and its load stays below that target until then, however busy the
machine: an offer that is turned down costs a few milliseconds, since the server asks the next worker; to be full for
a moment costs the room. Full is only what is not expected to change within the time that an offer may wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....pool import PoolStats

__all__ = ["HIGHEST_LOAD", "NOTHING", "Load", "load_of"]

HIGHEST_LOAD = 0.65
"""Of a worker that could take one more session: below the default target of LiveKit's servers."""


@dataclass(frozen=True, slots=True)
class Load:
    """``problem`` is why no session could start now."""

    available: bool
    value: float
    jobs: int
    problem: str | None = None


NOTHING = Load(False, 1.0, 0, "draining")


def load_of(problem: str | None, stats: PoolStats, max_jobs: int, offer_timeout: float) -> Load:
    """``problem``: the word for why the worker takes no sessions, whatever its pool says."""
    problem = problem or stats.not_ready_reason
    if problem == "warming" and stats.expected_wait is not None and stats.expected_wait <= offer_timeout:
        # Others that have a warm process are to be asked first.
        return Load(True, HIGHEST_LOAD, stats.jobs)
    if problem is not None:
        return Load(False, 1.0, stats.jobs, problem)
    return Load(True, round(HIGHEST_LOAD * stats.jobs / max_jobs, 4), stats.jobs)
