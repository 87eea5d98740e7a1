"""Whether the machine has memory for one more session."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..pool import PoolStats
from ..system.machine_memory import available_memory_mb

__all__ = ["MemoryRoom", "shortage"]


FRESH = 0.1
"""Seconds that a reading of the machine's memory is good for: many offers can come in one moment."""


class MemoryRoom:
    """Holds what is available against what sessions have cost so far. ``available`` is passed in for tests."""

    def __init__(self, min_free_mb: float | None, available: Callable[[], float] = available_memory_mb) -> None:
        self._min_free_mb = min_free_mb
        self._available = available
        self._read = 0.0
        self._read_at = float("-inf")

    def problem(self, stats: PoolStats) -> str | None:
        """Why there is no room for another session; ``None`` if there is, or if nobody wants to know."""
        if self._min_free_mb is None or stats.session_mb is None:
            return None
        try:
            available = self._available_lately()
        except FileNotFoundError:
            return None  # nothing tells, which is told at the start
        except OSError as error:  # no fd to look with, say: then there is none for another process, either
            return f"how much memory is available cannot be found out: {error}"
        if shortage(available, stats.session_mb, stats.expected_growth_mb, self._min_free_mb) <= 0:
            return None
        return (
            f"{available:.0f} MiB of memory are available; one more session takes about {stats.session_mb:.0f} MiB, "
            f"those that run may still take {stats.expected_growth_mb:.0f} MiB, "
            f"and {self._min_free_mb:g} MiB (min_free_memory_mb) are to stay free"
        )

    def _available_lately(self) -> float:
        now = time.monotonic()
        if now - self._read_at > FRESH:
            self._read, self._read_at = self._available(), now
        return self._read


def shortage(available_mb: float, session_mb: float, growth_mb: float, min_free_mb: float) -> float:
    """How much memory (MiB) is missing for one more session; 0 or less if there is enough. Pure."""
    return session_mb + growth_mb + min_free_mb - available_mb
