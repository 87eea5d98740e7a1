"""Waiting for a pool's processes to become idle, with the time that it took."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from ..pool import ProcessPool

__all__ = ["Growth", "grow", "until_idle"]

_LOOK_AGAIN = 0.001
"""Seconds between two looks at the pool, and so the error of what is measured here."""


@dataclass(frozen=True, slots=True)
class Growth:
    """One more process."""

    idle_seconds: float
    """From the request until it was idle."""
    prewarm_seconds: float
    """Of these, in ``prewarm`` and the rehearsal after it."""


async def grow(pool: ProcessPool, size: int) -> Growth | None:
    """Have ``size`` idle processes instead of one less; ``None`` if a process fails to become idle."""
    begin = time.monotonic()
    warming = begin
    ended = len(tuple(pool.recent_reports))
    pool.resize(size)
    while pool.stats().idle < size:
        if len(tuple(pool.recent_reports)) > ended or pool.stats().breaker_open:
            return None
        if any(process.state == "warming" for process in pool.processes):
            warming = warming if warming > begin else time.monotonic()
        await asyncio.sleep(_LOOK_AGAIN)
    now = time.monotonic()
    return Growth(now - begin, now - warming if warming > begin else 0.0)


async def until_idle(pool: ProcessPool, count: int, timeout: float) -> bool:
    """Wait until so many processes are idle; whether they were, within ``timeout`` seconds."""
    give_up = time.monotonic() + timeout
    while pool.stats().idle < count:
        if time.monotonic() > give_up or pool.stats().breaker_open:
            return False
        await asyncio.sleep(_LOOK_AGAIN)
    return True
