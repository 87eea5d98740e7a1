"""Whether a session could start now, and if not, why. Pure."""

from __future__ import annotations

from ..pool import PoolStats
from .admission import Closed

__all__ = ["not_ready"]

_DETAILS = {
    "full": "all jobs that max_jobs allows are taken",
    "warming": "no process is idle just now",
    "draining": "the worker takes no more jobs",
    "breaker_open": "processes do not become warm",
}


def not_ready(closed: Closed | None, stats: PoolStats) -> tuple[str, str] | None:
    """The reason, as one word and as a sentence; ``None`` if a session could start."""
    if closed is not None:
        return closed.reason, closed.message
    reason = stats.not_ready_reason
    # Where none is to be idle, every session starts cold, and none the less does start.
    if reason is None or (reason == "warming" and stats.idle_target == 0):
        return None
    detail = _DETAILS.get(reason, reason)
    return reason, f"{detail}: {stats.breaker_cause}" if stats.breaker_cause else detail
