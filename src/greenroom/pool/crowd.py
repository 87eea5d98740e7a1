"""How many processes may become warm at once, by how those before them fared. Pure.

Processes that load in ``prewarm`` share the CPUs. Where all of them together miss ``prewarm_timeout``, a part of them
would have kept it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Crowd"]

_FEWEST_SUCCESSES = 2
_MOST_SUCCESSES = 64


@dataclass(slots=True)
class Crowd:
    """Counts who kept the time and who missed it.

    One that has missed it halves the crowd. Some that have kept it let the crowd grow by one. Each halving doubles
    how many those are: a crowd that is known to be too large is not tried again and again.
    """

    allowed: int | None = None
    """``None``: as many as the bound allows."""
    _needed: int = _FEWEST_SUCCESSES
    _kept: int = 0
    _old: frozenset[str] = frozenset()
    """Who was there at the last change. What becomes of them says nothing about the crowd of another size."""

    def bounded(self, bound: int) -> int:
        """Return how many may become warm at once, of ``bound`` at the most."""
        return bound if self.allowed is None else min(self.allowed, bound)

    def missed(self, process: str, crowd: Iterable[str], bound: int) -> bool:
        """Note that a process has missed its time among those of a crowd. Tell whether fewer are allowed now."""
        present = frozenset(crowd) | {process}
        if process in self._old or len(present) == 1:
            return False  # told already; or it was alone, and fewer than one cannot be
        if self.allowed is not None:
            self._needed = min(2 * self._needed, _MOST_SUCCESSES)
        self.allowed = max(min(len(present), self.bounded(bound)) // 2, 1)
        self._old, self._kept = present, 0
        return True

    def kept(self, process: str, crowd: Iterable[str], bound: int) -> bool:
        """Note that a process of a crowd has become warm in time. Tell whether more are allowed now."""
        if self.allowed is None or process in self._old:
            return False
        self._kept += 1
        if self._kept < self._needed:
            return False
        self._kept, self._old = 0, frozenset(crowd)
        if self.allowed >= bound:
            self.allowed, self._needed, self._old = None, _FEWEST_SUCCESSES, frozenset()
            return False
        self.allowed += 1
        return True
