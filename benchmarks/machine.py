"""What the machine is, and what its processes use: all read from /proc."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PACKAGES = ("greenroom", "livekit-agents", "livekit", "pebble")


def facts() -> dict[str, str]:
    """The machine and the versions that the figures belong to."""
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{_meminfo('MemTotal') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    found["load"] = f"{os.getloadavg()[0]:.1f}"
    for package in _PACKAGES:
        found[package] = _version(package)
    found["node"] = _output("node", "--version")
    return found


def stolen_and_all() -> tuple[int, int]:
    """CPU time so far that the machine below this one took, and all CPU time, in ticks."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[7], sum(fields)


def idle_and_all() -> tuple[int, int]:
    """CPU time so far in which nobody used a CPU, and all CPU time, in ticks."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


def steal_since(before: tuple[int, int]) -> float:
    """Part of the CPU time since then that was stolen."""
    stolen, everything = (now - then for now, then in zip(stolen_and_all(), before, strict=True))
    return stolen / max(everything, 1)


def _processor() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not installed"


def _meminfo(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert match, f"{field} in /proc/meminfo"
    return int(match[1]) * 1024


def available_memory() -> int:
    return _meminfo("MemAvailable")


def private_memory(pid: int) -> int:
    """Bytes that ending the process would give back (USS)."""
    usage = _smaps_rollup(pid)
    return usage["Private_Clean"] + usage["Private_Dirty"]


def proportional_memory(pid: int) -> int:
    """Bytes the process uses, each shared page divided by its users (PSS): these add up over processes."""
    return _smaps_rollup(pid)["Pss"]


def _smaps_rollup(pid: int) -> dict[str, int]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}


def cpu_seconds(pid: int) -> float:
    """CPU time used so far by all threads there are.

    In nanoseconds where the kernel tells: a process that uses a millisecond now and then stays at 0 for long
    in /proc/PID/stat, which counts hundredths of a second, and a thousand such processes with it.
    """
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except FileNotFoundError:
        fields = _stat(pid)
        return (int(fields[11]) + int(fields[12])) / _TICK


def descendants(root: int) -> list[int]:
    """All processes below `root`, zombies too."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(_stat(int(entry))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we read
            children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    level = [root]
    while level:
        level = [child for pid in level for child in children.get(pid, ())]
        found += level
    return found


def _stat(pid: int) -> list[str]:
    # The command's name is in brackets and may itself hold spaces and brackets.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
