"""What /proc says of processes and of the machine."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Sample:
    """The supervisor and the machine at one moment."""

    at: float
    rss_mb: float
    fds: int
    threads: int
    load: float
    steal: float
    """Share of the machine's CPU time that went elsewhere since the last look."""


class Sampler:
    """Looks at one process, and at the machine around it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._last = _cpu_times()

    def take(self) -> Sample | None:
        """Return how things stand, or None if the process has ended."""
        before, self._last = self._last, _cpu_times()
        total = sum(self._last) - sum(before) or 1
        with suppress(OSError):
            return Sample(
                at=time.time(),
                rss_mb=int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * PAGE_MB,
                fds=len(os.listdir(f"/proc/{self._pid}/fd")),
                threads=len(os.listdir(f"/proc/{self._pid}/task")),
                load=os.getloadavg()[0],
                steal=(self._last[7] - before[7]) / total,
            )
        return None


def _cpu_times() -> list[int]:
    line = Path("/proc/stat").read_text().partition("\n")[0]
    return [int(each) for each in line.split()[1:9]]


def peak_mb(pid: int) -> float:
    """The most memory that a process has had so far; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def marked(variable: str) -> list[int]:
    """All processes that have inherited ``NAME=VALUE`` in their environment, zombies left out."""
    wanted, found = variable.encode(), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return found


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80].strip()
    return "ended"
