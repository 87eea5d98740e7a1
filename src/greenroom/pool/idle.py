"""The processes that wait for a job, in the order in which they became idle. Those on trial are not among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .process import Process

__all__ = ["IdleQueue"]


class IdleQueue:
    """Adding, removing and taking cost the same however many there are."""

    def __init__(self) -> None:
        self._processes: dict[Process, None] = {}  # ordered, and quick to remove from
        self._per_generation: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._processes)

    def __iter__(self) -> Iterator[Process]:
        return iter(self._processes)

    def add(self, process: Process) -> None:
        self._processes[process] = None
        self._per_generation[process.generation] += 1

    def discard(self, process: Process) -> None:
        if process in self._processes:
            del self._processes[process]
            self._per_generation[process.generation] -= 1

    def count(self, generation: int) -> int:
        return self._per_generation[generation]

    def oldest(self, number: int) -> list[Process]:
        return list(islice(self._processes, max(number, 0)))

    def in_order(self, generation: int) -> Iterator[Process]:
        """Those of that generation first, then the others; each in the order in which they became idle."""
        if self._per_generation[generation] == len(self):
            return iter(self._processes)
        present = (process for process in self._processes if process.generation == generation)
        others = (process for process in self._processes if process.generation != generation)
        return chain(present, others)
