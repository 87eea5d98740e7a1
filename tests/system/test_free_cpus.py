"""CPUs that nobody uses, on machines of every kind: folders stand in for their /proc and /sys."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from greenroom.system.free_cpus import FreeCpus

TICKS = os.sysconf("SC_CLK_TCK")
CPUS = sorted(os.sched_getaffinity(0))
MOUNTS = {
    1: "35 24 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct",
    2: "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
}
PLACES = {1: "4:cpu,cpuacct:/pod/app\n", 2: "0::/pod/app\n"}
APPS = {1: "sys/fs/cgroup/cpu/pod/app", 2: "sys/fs/cgroup/pod/app"}


def _write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(text))


def _machine(root: Path, version: int) -> Path:
    """A machine with one CPU more than this process may use."""
    _write(root / "proc/self/mountinfo", MOUNTS[version])
    _write(root / "proc/self/cgroup", PLACES[version])
    (root / APPS[version]).mkdir(parents=True)
    return root


def _idle(root: Path, seconds: float, *, disk: float = 0.0, stolen: float = 0.0) -> None:
    """Each CPU has been idle for so long; the other one for a hundred times as long."""
    lines = ["cpu  1 2 3 4 5 6 7 8 9 10"]
    for cpu in [*CPUS, max(CPUS) + 1]:
        times = [0, 0, 0, seconds * (1 if cpu in CPUS else 100), disk, 0, 0, stolen, 0, 0]
        lines.append(" ".join([f"cpu{cpu}", *(str(round(each * TICKS)) for each in times)]))
    _write(root / "proc/stat", "\n".join([*lines, "intr 1 2 3", "cpufreq 1"]) + "\n")


def _used_v1(root: Path, seconds: float) -> None:
    _write(root / APPS[1] / "cpuacct.usage", round(seconds * 1e9))


def _used_v2(root: Path, seconds: float) -> None:
    _write(root / APPS[2] / "cpu.stat", f"nr_periods 7\nusage_usec {round(seconds * 1e6)}\nuser_usec 1\n")


def test_cpus_that_this_process_may_not_use_and_stolen_time_do_not_count(tmp_path: Path) -> None:
    root = _machine(tmp_path, 2)
    free = FreeCpus(root)
    _idle(root, 100.0)
    assert free.look(1000.0) is None
    _idle(root, 100.5, disk=0.25, stolen=0.25)
    assert free.look(1001.0) == pytest.approx(0.75 * len(CPUS))


@pytest.mark.parametrize(("version", "used"), [(1, _used_v1), (2, _used_v2)])
def test_a_quota_leaves_what_is_not_used_of_it(
    version: int, used: Callable[[Path, float], None], tmp_path: Path
) -> None:
    root = _machine(tmp_path, version)
    if version == 1:
        _write(root / APPS[1] / "cpu.cfs_quota_us", 50000)
        _write(root / APPS[1] / "cpu.cfs_period_us", 100000)
    else:
        _write(root / APPS[2] / "cpu.max", "50000 100000")
    free = FreeCpus(root)
    for second, seconds in enumerate([10.0, 10.2, 11.2]):  # the last is more than the quota: it came in bursts
        _idle(root, float(second))
        used(root, seconds)
        assert free.look(1000.0 + second) == [None, pytest.approx(0.3), 0.0][second]


def test_where_nothing_can_be_read_nobody_knows(tmp_path: Path) -> None:
    root = _machine(tmp_path, 2)
    free = FreeCpus(root)
    assert free.look(1.0) is None
    _idle(root, 1.0)
    assert free.look(2.0) is None  # the look before it saw nothing
    _idle(root, 2.0)
    assert free.look(2.0) is None  # no time has passed
    _idle(root, 2.5)
    assert free.look(3.0) == pytest.approx(0.5 * len(CPUS))


def test_this_machine_answers() -> None:
    free = FreeCpus()
    free.look(0.0)
    found = free.look(1.0)
    assert found is not None
    assert found >= 0.0
