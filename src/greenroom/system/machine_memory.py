"""How much memory may still be used: by the machine's account, and by that of each cgroup above this process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .cgroup_levels import Level, levels, number_in

__all__ = ["MemoryLeft", "available_memory_mb", "tightest"]

_FILES = {  # limits, what is used, and what of that the kernel gives back without effort
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    2: (("memory.max", "memory.high"), "memory.current", "inactive_file"),
}


class MemoryLeft(NamedTuple):
    """Memory that is left somewhere."""

    mb: float
    where: str
    """``the machine``, or the folder of the cgroup that leaves so little."""


def available_memory_mb(root: Path = Path("/")) -> float:
    """Memory (MiB) that this process and its children can still take before something must give way.

    The least of ``MemAvailable`` and of what each memory cgroup has left below its limit, on either
    version; page cache that has not been used lately does not count as taken. ``memory.high`` counts as a
    limit: beyond it processes are slowed down. Never below 0. Raises ``FileNotFoundError`` where nothing tells: no
    cgroup has a limit, and ``/proc`` shows processes alone (systemd's ``ProcSubset=pid``).
    """
    return tightest(root).mb


def tightest(root: Path = Path("/")) -> MemoryLeft:
    """The same as :func:`available_memory_mb`, with what bounds it."""
    rooms = []
    untold: FileNotFoundError | None = None
    try:
        rooms.append((_mem_available(root), "the machine"))
    except FileNotFoundError as error:
        untold = error
    for level in levels("memory", root):
        left = _left_below_limit(level)
        if left is not None:
            rooms.append((left, f"cgroup {level.folder}"))
    if untold is not None and not rooms:
        raise untold
    least, where = min(rooms)
    return MemoryLeft(max(least, 0) / 2**20, where)


def _mem_available(root: Path) -> int:
    path = root / "proc/meminfo"
    found = _field(path, "MemAvailable:")
    if found is None:
        raise FileNotFoundError(f"{path} does not tell MemAvailable")
    return found * 1024


def _left_below_limit(level: Level) -> int | None:
    """Bytes; ``None`` where there is no limit, or it is not told how much is used."""
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
