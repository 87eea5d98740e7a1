"""Room of the machine for further jobs, by its memory and by its CPU time."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...options import PoolOptions
from ...pool import PoolStats
from ...sources import Closed
from .cpu_room import CpuRoom
from .limits import MemoryRoom

__all__ = ["MachineRoom", "Room"]

_RETRY_AFTER = 2.0
"""Seconds. Sessions end and start at any time, so there may soon be room again."""


class Room(NamedTuple):
    """Number of further jobs that may be live at the same time, and the limit that allows no more."""

    jobs: int
    limit: Literal["max_jobs", "memory", "cpu"]


class MachineRoom:
    """Check of the memory and the CPU time for a further job."""

    def __init__(self, memory: MemoryRoom, cpu: CpuRoom) -> None:
        self.memory = memory
        self.cpu = cpu

    def problem(self, stats: PoolStats) -> Closed | None:
        """Return why the machine has no room for a further job; ``None`` if it has."""
        message = self.memory.problem(stats)
        if message is not None:
            return Closed("memory", message, _RETRY_AFTER)
        message = self.cpu.problem(stats)
        return None if message is None else Closed("cpu", message, _RETRY_AFTER)

    def room(self, stats: PoolStats, options: PoolOptions) -> Room:
        """Return the room by the tightest limit that is known."""
        found = [Room(max(options.max_jobs - stats.jobs, 0), "max_jobs")]
        by_memory, by_cpu = self.memory.further_sessions(stats), self.cpu.further_sessions(stats.jobs)
        if by_memory is not None:
            found.append(Room(by_memory, "memory"))
        if by_cpu is not None:
            found.append(Room(by_cpu, "cpu"))
        return min(found, key=lambda room: room.jobs)
