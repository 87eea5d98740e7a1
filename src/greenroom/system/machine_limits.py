"""How many more tasks (processes and threads) may be started, and how many CPUs there are to run them."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .cgroup_levels import levels, number_in

__all__ = ["TaskRoom", "runnable_tasks", "task_rooms", "usable_cpus"]

_MAY_EXCEED_NPROC = (1 << 24) | (1 << 21)  # CAP_SYS_RESOURCE, CAP_SYS_ADMIN (setrlimit(2))


class TaskRoom(NamedTuple):
    """One limit on tasks."""

    left: int
    limit: int
    where: str
    remedy: str


def task_rooms(root: Path = Path("/")) -> list[TaskRoom]:
    """Every limit on tasks that binds this process, the tightest first. What is not told is left out."""
    return sorted([*_of_user(root), *_of_cgroups(root), *_of_kernel(root)])


def usable_cpus(root: Path = Path("/")) -> float:
    """CPUs that this process may use at a time: by its affinity, and by the quota of each cgroup."""
    cpus = float(len(os.sched_getaffinity(0)))
    for level in levels("cpu", root):
        with suppress(OSError, ValueError):  # no quota, or not told
            if level.version == 2:
                quota, period = (level.folder / "cpu.max").read_text().split()
            else:
                quota = (level.folder / "cpu.cfs_quota_us").read_text()
                period = (level.folder / "cpu.cfs_period_us").read_text()
            if int(quota) > 0:
                cpus = min(cpus, int(quota) / int(period))
    return cpus


def runnable_tasks() -> int:
    """Threads of the whole machine that run or want to at this moment, whoever asks included.

    Raises ``OSError`` when there are no fds left to read with.
    """
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])


def _of_user(root: Path) -> Iterator[TaskRoom]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft == resource.RLIM_INFINITY or _may_exceed_nproc(root):
        return
    used = sum(tasks for uid, tasks in _tasks_by_process(root) if uid == os.getuid())
    yield TaskRoom(soft - used, soft, "nproc (this user's tasks on the machine)", "raise ulimit -u, or LimitNPROC=")


def _of_cgroups(root: Path) -> Iterator[TaskRoom]:
    for level in levels("pids", root):
        limit, used = number_in(level.folder / "pids.max"), number_in(level.folder / "pids.current")
        if limit is not None and used is not None:
            remedy = "raise TasksMax= (systemd), --pids-limit (Docker) or podPidsLimit (Kubernetes)"
            yield TaskRoom(limit - used, limit, f"pids.max of cgroup {level.folder}", remedy)


def _of_kernel(root: Path) -> Iterator[TaskRoom]:
    with suppress(OSError, ValueError, IndexError):
        used = int((root / "proc/loadavg").read_text().split()[3].partition("/")[2])
        for name in ("threads-max", "pid_max"):
            limit = number_in(root / "proc/sys/kernel" / name)
            if limit is not None:
                yield TaskRoom(limit - used, limit, f"kernel.{name}", f"raise it: sysctl -w kernel.{name}=N")


def _may_exceed_nproc(root: Path) -> bool:
    with suppress(OSError):
        status = _status(root / "proc/self/status")
        return bool(int(status.get("CapEff", "0"), 16) & _MAY_EXCEED_NPROC)
    return False


def _tasks_by_process(root: Path) -> Iterator[tuple[int, int]]:
    """The real user and the number of tasks of each process."""
    for entry in (root / "proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, KeyError):  # it has ended since
                status = _status(entry / "status")
                yield int(status["Uid"].split()[0]), int(status["Threads"])


def _status(path: Path) -> dict[str, str]:
    fields = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in fields}
