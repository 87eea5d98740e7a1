"""Limits on tasks and CPUs, on machines of every kind: folders stand in for their /proc and /sys."""

from __future__ import annotations

import os
from pathlib import Path

from greenroom.system import kernel_features
from greenroom.system.machine_limits import task_rooms, usable_cpus

MOUNT = "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"


def _write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(text))


def _machine(root: Path) -> Path:
    _write(root / "proc/self/mountinfo", MOUNT)
    _write(root / "proc/self/cgroup", "0::/pod/app\n")
    _write(root / "proc/self/status", "Name:\tpython\nCapEff:\t000001ffffffffff\n")  # root: nproc does not bind
    _write(root / "sys/fs/cgroup/pod/app/cgroup.procs", "")
    return root


def test_every_level_of_the_pids_cgroup_and_the_kernel_count(tmp_path: Path) -> None:
    root = _machine(tmp_path)
    _write(root / "sys/fs/cgroup/pod/app/pids.max", "max")
    _write(root / "sys/fs/cgroup/pod/app/pids.current", 10)
    _write(root / "sys/fs/cgroup/pod/pids.max", 512)
    _write(root / "sys/fs/cgroup/pod/pids.current", 12)
    _write(root / "proc/loadavg", "0.10 0.20 0.30 1/132 4711\n")
    _write(root / "proc/sys/kernel/threads-max", 95_000)
    _write(root / "proc/sys/kernel/pid_max", 32_768)
    found = task_rooms(root)
    assert [(room.left, room.limit) for room in found] == [(500, 512), (32_636, 32_768), (94_868, 95_000)]
    assert "cgroup" in found[0].where
    assert "TasksMax=" in found[0].remedy


def test_what_is_not_told_does_not_bind(tmp_path: Path) -> None:
    assert task_rooms(_machine(tmp_path)) == []


def test_the_user_s_tasks_count_where_there_is_a_limit_on_them(tmp_path: Path) -> None:
    root = _machine(tmp_path)
    _write(root / "proc/self/status", "CapEff:\t0000000000000000\n")
    for pid, uid, threads in ((7, os.getuid(), 30), (8, os.getuid(), 2), (9, os.getuid() + 1, 500)):
        _write(root / f"proc/{pid}/status", f"Uid:\t{uid}\t0\t0\t0\nThreads:\t{threads}\n")
    for room in task_rooms(root):  # none where nproc is not limited
        assert room.limit - room.left == 32
        assert "nproc" in room.where


def test_this_machine_answers() -> None:
    assert all(room.left <= room.limit for room in task_rooms())
    assert usable_cpus() > 0


def test_a_cpu_quota_binds_at_whichever_level_it_stands(tmp_path: Path) -> None:
    root = _machine(tmp_path)
    assert usable_cpus(root) == len(os.sched_getaffinity(0))
    _write(root / "sys/fs/cgroup/pod/app/cpu.max", "max 100000")
    _write(root / "sys/fs/cgroup/pod/cpu.max", "50000 100000")
    assert usable_cpus(root) == 0.5


def test_what_greenroom_stands_on_works_here() -> None:
    """Greenroom's other tests need all of it, so here every trial must find that it works."""
    trials = (kernel_features.pidfd, kernel_features.subreaper, kernel_features.lifeline, kernel_features.memfd)
    assert [trial() for trial in trials] == [""] * 4
    assert kernel_features.smaps_rollup() == ""


def test_pressure_and_shared_memory_may_be_missing(tmp_path: Path) -> None:
    assert not kernel_features.psi(tmp_path)
    assert kernel_features.shm_free_mb(tmp_path / "shm") is None
    free = kernel_features.shm_free_mb(tmp_path)
    assert free is not None
    assert free > 0
