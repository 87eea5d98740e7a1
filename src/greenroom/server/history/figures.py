"""Memory, CPU time and loop lag of one job over its life, as a bounded number of samples."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Figures", "Sample"]

MOST = 300
"""Samples that are kept. Above this, every second one is dropped, and later ones come half as often."""


class Sample(NamedTuple):
    """Figures of a job at one moment."""

    at: float
    memory_mb: float | None
    """Private memory; ``None`` before it was measured."""
    cpu_seconds: float
    """CPU time since the start of the process."""
    lag: float | None
    """Seconds by which the last beat of the event loop came late; ``None`` before the first beat."""


class Figures:
    """Samples of a job, the latest always among them."""

    def __init__(self) -> None:
        self._kept: list[Sample] = []
        self._every = 1
        self._skipped = 0
        self.count = 0
        """Number of all samples so far."""
        self.latest: Sample | None = None

    def add(self, sample: Sample) -> None:
        self.latest = sample
        self.count += 1
        self._skipped += 1
        if self._skipped < self._every:
            return
        self._skipped = 0
        self._kept.append(sample)
        if len(self._kept) > MOST:
            del self._kept[1::2]
            self._every *= 2

    def all(self) -> list[Sample]:
        """Return the kept samples, oldest first."""
        if self.latest is None or (self._kept and self._kept[-1] is self.latest):
            return list(self._kept)
        return [*self._kept, self.latest]
