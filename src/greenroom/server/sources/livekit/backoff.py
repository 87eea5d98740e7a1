"""How long to wait before the next attempt. Pure."""

from __future__ import annotations

__all__ = ["backoff"]


def backoff(attempt: int, chance: float, *, first: float = 0.5, longest: float = 10.0) -> float:
    """Seconds before attempt 1, 2, 3 …: twice as long each time, of which between a half and all by ``chance``.

    ``chance`` is a random number from 0 to 1: many workers that lost one server do not all come back at once.
    """
    longest_now = min(first * 2.0 ** min(attempt - 1, 32), longest)
    return longest_now * (0.5 + 0.5 * chance)
