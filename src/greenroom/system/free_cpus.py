"""CPUs that nobody uses, of those on which this process may run.

A CPU is free while it is idle or waits for a disk (``/proc/stat`` in proc(5)). Time that a hypervisor has taken is not
free. A quota of a cgroup leaves no more than what the processes in the cgroup have not used of it.
"""

from __future__ import annotations

import os
from pathlib import Path

from .cgroup_levels import Level
from .machine_limits import quotas

__all__ = ["FreeCpus"]

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_IDLE, _WAITS_FOR_DISK = 4, 5
"""Fields of a line of ``/proc/stat``."""


class FreeCpus:
    """Number of free CPUs between two looks. Reads one file, and one more for each quota."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._quotas = quotas(root)
        self._before: tuple[float, list[float]] | None = None

    def look(self, now: float) -> float | None:
        """Return how many CPUs were free on average since the last look; ``None`` if nobody knows.

        ``now`` is the time in seconds, on any clock that does not go back. The first look has no answer.
        """
        try:
            left = [self._idle_seconds(), *(quota.cpus * now - _used_seconds(quota.level) for quota in self._quotas)]
        except (OSError, ValueError, IndexError):
            self._before = None
            return None
        before, self._before = self._before, (now, left)
        if before is None or now <= before[0]:
            return None
        gained = min(later - earlier for later, earlier in zip(left, before[1], strict=True))
        return max(gained / (now - before[0]), 0.0)

    def _idle_seconds(self) -> float:
        """Return for how long the CPUs on which this process may run have been idle, added up."""
        usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        ticks = 0
        for line in (self._root / "proc/stat").read_text().splitlines():
            name, *_ = fields = line.split()
            if name in usable:
                ticks += int(fields[_IDLE]) + int(fields[_WAITS_FOR_DISK])
        return ticks * _TICK


def _used_seconds(level: Level) -> float:
    """Return the CPU seconds that the processes in a cgroup have used. Raises ``OSError`` or ``ValueError``."""
    if level.version == 1:
        return int((level.folder / "cpuacct.usage").read_text()) / 1e9
    for line in (level.folder / "cpu.stat").read_text().splitlines():
        if line.startswith("usage_usec "):
            return int(line.split()[1]) / 1e6
    raise ValueError("cpu.stat has no usage_usec")
