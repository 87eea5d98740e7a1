"""Exponential backoff: the wait before the next attempt. Pure."""

from __future__ import annotations

__all__ = ["backoff"]


def backoff(attempt: int, *, first: float, longest: float, chance: float = 1.0) -> float:
    """Return the seconds to wait before attempt 1, 2, 3 …: ``first``, then twice as long each time, up to ``longest``.

    ``chance`` is a number from 0 to 1. With 0 the wait is half as long, and with 1 it has its full length. With random
    numbers, many clients that lost one server do not all come back at the same time.
    """
    return min(first * 2.0 ** min(attempt - 1, 32), longest) * (0.5 + 0.5 * chance)
