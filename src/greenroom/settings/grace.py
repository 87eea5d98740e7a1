"""How long a worker can take to end in order, for whoever would kill it sooner. Pure."""

from __future__ import annotations

from ..options import PoolOptions

__all__ = ["MARGIN", "longest_stop"]

MARGIN = 15.0
"""Seconds beside what is set: the stacks of who does not end, kills, burials, the zygote's end, the last answers."""


def longest_stop(pool: PoolOptions, drain_timeout: float) -> float:
    """Seconds from SIGTERM to the worker's exit, at the most.

    A job that is still there when the drain is over has ``shutdown_timeout`` to stop, and again for its shutdown
    callbacks, and then its process has ``cleanup_timeout`` to exit.
    """
    return drain_timeout + 2 * pool.shutdown_timeout + pool.cleanup_timeout + MARGIN
