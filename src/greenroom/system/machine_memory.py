"""Memory that is left, on the machine and below the limit of each cgroup above this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .cgroup_levels import Level, levels, number_in

__all__ = ["MemoryGauge", "MemoryLeft", "tightest"]

_FILES = {  # files of the limits and of the use, and the field of the use that the kernel can free easily
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    2: (("memory.max", "memory.high"), "memory.current", "inactive_file"),
}
REFRESH = 10.0
"""Seconds for which a gauge uses the limits that it has found: an operator may change them."""


class MemoryLeft(NamedTuple):
    """Memory (MiB) that is left on the machine or in a cgroup."""

    mb: float
    where: str
    """``the machine``, or the cgroup with its folder."""


class _Limit(NamedTuple):
    """Memory limit of one cgroup."""

    level: Level
    bytes: int


class MemoryGauge:
    """Gauge of the memory that is left, for frequent readings.

    A reading opens ``/proc/meminfo``, and two files of each cgroup with a limit. The search for these cgroups parses
    the table of all mounts, so its result is used for :data:`REFRESH` seconds.
    """

    def __init__(self, root: Path = Path("/"), now: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._now = now
        self._limits: list[_Limit] = []
        self._found_at = float("-inf")

    def available_mb(self) -> float:
        """Return the memory (MiB) of :func:`tightest`, which may also raise."""
        now = self._now()
        if now - self._found_at < REFRESH:
            return _tightest(self._root, self._limits).mb
        limits = _limits(self._root)
        left = _tightest(self._root, limits).mb  # raises if no fds are left: then the search has found no limit, either
        self._limits, self._found_at = limits, now
        return left


def tightest(root: Path = Path("/")) -> MemoryLeft:
    """Return the memory that this process and its children can still take (at least 0), and where it is limited.

    This is the least of ``MemAvailable`` and the rest below each memory cgroup's limit (version 1 or 2).
    Page cache that was not used lately does not count as taken. ``memory.high`` counts as a limit, since the kernel
    slows processes down beyond it. Raises ``FileNotFoundError`` where no cgroup has a limit and ``/proc`` shows
    processes alone (systemd's ``ProcSubset=pid``).
    """
    return _tightest(root, _limits(root))


def _tightest(root: Path, limits: list[_Limit]) -> MemoryLeft:
    rooms = []
    failure: FileNotFoundError | None = None
    try:
        rooms.append((_mem_available(root), "the machine"))
    except FileNotFoundError as error:
        failure = error
    for limit in limits:
        left = _left_below(limit)
        if left is not None:
            rooms.append((left, f"cgroup {limit.level.folder}"))
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


def _limits(root: Path) -> list[_Limit]:
    """Return the limit of each cgroup that has one, of this process's cgroup and those above it."""
    found = []
    for level in levels("memory", root):
        known = [limit for name in _FILES[level.version][0] if (limit := number_in(level.folder / name)) is not None]
        if known:
            found.append(_Limit(level, min(known)))
    return found


def _left_below(limit: _Limit) -> int | None:
    """Return the bytes below a cgroup's limit; ``None`` where the use is not known."""
    _, usage, reclaimable = _FILES[limit.level.version]
    used = number_in(limit.level.folder / usage)
    if used is None:
        return None
    idle_cache = 0
    with suppress(OSError):
        idle_cache = _field(limit.level.folder / "memory.stat", reclaimable) or 0
    return limit.bytes - used + idle_cache


def _field(path: Path, name: str) -> int | None:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value.split()[0])
    return None
