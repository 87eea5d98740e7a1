"""What a process costs, as the kernel tells it in `/proc/PID/smaps_rollup`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """Of one process, in MiB."""

    private: float
    """Pages that no other process has: what would be free again if it ended."""
    proportional: float
    """PSS: the private pages, and of each shared page this process's share."""
    resident: float
    """All of its pages, as if it shared none."""


def memory_of(pid: int) -> Memory | None:
    """Measure a process; None if it is gone, or may not be looked at."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    rows = (line.split() for line in text.splitlines()[1:])
    kib = {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) == 3}
    if "Rss" not in kib:
        return None  # a zombie has no memory any more
    return Memory((kib["Private_Clean"] + kib["Private_Dirty"]) / 1024, kib["Pss"] / 1024, kib["Rss"] / 1024)
