"""Load that this worker reports to a LiveKit server: its jobs beside its room for more, or from ``load_fnc``. Pure.

A server dispatches to workers that are available and have a load below its ``target_load`` (0.7 by default). Workers
with a lower load get more jobs. If no worker is available for a room, the server never asks again for that room. So
this worker is available as long as a session could start. Meanwhile its load stays below the target, even on a busy
machine. A rejected offer costs a few milliseconds, since the server asks the next worker. A worker that is full for a
moment costs the room. So the worker is full only if no process is expected within the time that an offer may wait.

An app with a ``load_fnc`` decides this itself, as under LiveKit's own worker: it is full when the load reaches the
app's threshold. The worker is also full when no session could start.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....errors import RejectionReason
from ....sources import PoolStats

__all__ = ["HIGHEST_LOAD", "NOTHING", "AppLoad", "Load", "load_of"]

HIGHEST_LOAD = 0.65
"""Highest load of a worker that could take one more session. It is below the default target of LiveKit's servers."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load of the worker. ``problem`` is the reason if no session could start now."""

    available: bool
    value: float
    jobs: int
    problem: RejectionReason | None = None


NOTHING = Load(False, 1.0, 0, "draining")


@dataclass(frozen=True, slots=True)
class AppLoad:
    """Last load from ``load_fnc``, with the jobs to come."""

    value: float
    threshold: float | None
    """Load from which on the worker is full; ``None`` for no threshold."""
    active: int
    """Jobs that were launched and have not ended. ``load_fnc`` knows these jobs."""
    reserved: int
    """Jobs that passed the gate, and are not launched yet."""
    idle: int
    """Number of processes that should wait for jobs (``num_idle_processes``)."""

    @property
    def effective(self) -> float:
        """Load with the reserved jobs added, by LiveKit's estimate of the load of one job."""
        if self.active:
            each = self.value / self.active
        elif self.threshold is None:
            each = 0.0
        else:
            each = self.threshold / max(self.idle, 1)
        return self.value + self.reserved * each

    @property
    def is_full(self) -> bool:
        """True if LiveKit's worker would take no more jobs."""
        return self.threshold is not None and self.effective >= self.threshold


def load_of(
    problem: RejectionReason | None,
    stats: PoolStats,
    further_jobs: int,
    offer_timeout: float,
    app: AppLoad | None = None,
) -> Load:
    """Return the load of a worker.

    ``problem`` is the worker's own reason to take no sessions, which comes before the pool's. ``app`` is ``None`` if
    the app has no ``load_fnc``, or if that function gives no load. ``further_jobs`` is how many more jobs ``max_jobs``,
    the memory and the CPUs allow. ``offer_timeout`` is in seconds.
    """
    problem = problem or stats.not_ready_reason
    value = round(HIGHEST_LOAD * stats.jobs / max(stats.jobs + further_jobs, 1), 4) if app is None else app.value
    if problem == "warming" and stats.expected_wait is not None and stats.expected_wait <= offer_timeout:
        # The server should first ask workers that have a warm process.
        problem, value = None, max(HIGHEST_LOAD, value)
    if problem is not None:
        return Load(False, 1.0, stats.jobs, problem)
    if app is not None and app.is_full:
        return Load(False, value, stats.jobs, "load")
    return Load(True, value, stats.jobs)
