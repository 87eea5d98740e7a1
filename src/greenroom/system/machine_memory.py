"""Memory that is left, on the machine and below the limit of each cgroup above this process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .cgroup_levels import Level, levels, number_in

__all__ = ["MemoryLeft", "available_memory_mb", "tightest"]

_FILES = {  # files of the limits and of the use, and the field of the use that the kernel can free easily
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    2: (("memory.max", "memory.high"), "memory.current", "inactive_file"),
}


class MemoryLeft(NamedTuple):
    """Memory (MiB) that is left on the machine or in a cgroup."""

    mb: float
    where: str
    """``the machine``, or the cgroup with its folder."""


def available_memory_mb(root: Path = Path("/")) -> float:
    """Return the memory (MiB) that this process and its children can still take: at least 0.

    This is the least of ``MemAvailable`` and the rest below each memory cgroup's limit (version 1 or 2).
    Page cache that was not used lately does not count as taken. ``memory.high`` counts as a limit, since the kernel
    slows processes down beyond it. Raises ``FileNotFoundError`` where no cgroup has a limit and ``/proc`` shows
    processes alone (systemd's ``ProcSubset=pid``).
    """
    return tightest(root).mb


def tightest(root: Path = Path("/")) -> MemoryLeft:
    """Return the memory of :func:`available_memory_mb`, with the machine or cgroup that limits it."""
    rooms = []
    failure: FileNotFoundError | None = None
    try:
        rooms.append((_mem_available(root), "the machine"))
    except FileNotFoundError as error:
        failure = error
    for level in levels("memory", root):
        left = _left_below_limit(level)
        if left is not None:
            rooms.append((left, f"cgroup {level.folder}"))
    if failure is not None and not rooms:
        raise failure
    least, where = min(rooms)
    return MemoryLeft(max(least, 0) / 2**20, where)


def _mem_available(root: Path) -> int:
    path = root / "proc/meminfo"
    found = _field(path, "MemAvailable:")
    if found is None:
        raise FileNotFoundError(f"{path} has no MemAvailable")
    return found * 1024


def _left_below_limit(level: Level) -> int | None:
    """Return the bytes below a cgroup's limit; ``None`` where the limit or the use is not known."""
    limits, usage, reclaimable = _FILES[level.version]
    known = [limit for name in limits if (limit := number_in(level.folder / name)) is not None]
    used = number_in(level.folder / usage)
    if not known or used is None:
        return None
    idle_cache = 0
    with suppress(OSError):
        idle_cache = _field(level.folder / "memory.stat", reclaimable) or 0
    return min(known) - used + idle_cache


def _field(path: Path, name: str) -> int | None:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value.split()[0])
    return None
