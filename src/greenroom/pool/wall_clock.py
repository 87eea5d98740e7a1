"""Wall time in seconds since the epoch, computed from the monotonic clock.

The offset between the two clocks is fixed at the import. So a jump of the system's wall clock does not show.
"""

from __future__ import annotations

import time

__all__ = ["EPOCH", "wall_time"]

EPOCH = time.time() - time.monotonic()
"""Seconds to add to the monotonic clock's time, so that the sum is wall time."""


def wall_time(monotonic: float) -> float:
    """Return a reading of the monotonic clock as seconds since the epoch."""
    return EPOCH + monotonic
