"""Limits on tasks (processes and threads), the room below each limit, and the CPUs that can run tasks."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .cgroup_levels import Level, levels, number_in

__all__ = ["Quota", "TaskRoom", "quotas", "scarce_tasks", "task_rooms", "usable_cpus"]

_MAY_EXCEED_NPROC = (1 << 24) | (1 << 21)  # CAP_SYS_RESOURCE, CAP_SYS_ADMIN (setrlimit(2))


class TaskRoom(NamedTuple):
    """Limit on tasks, and the number of tasks that may still start."""

    left: int
    limit: int
    where: str
    remedy: str


class Quota(NamedTuple):
    """CPUs that the processes in a cgroup may use on average."""

    cpus: float
    level: Level


def task_rooms(root: Path = Path("/")) -> list[TaskRoom]:
    """Return every limit on tasks that binds this process, the tightest first. Limits that are hidden are left out."""
    return sorted([*_of_user(root), *_of_cgroups(root), *_of_kernel(root)])


def scarce_tasks(most: int, root: Path = Path("/")) -> TaskRoom | None:
    """Return the tightest limit with less than a tenth left. Limits above ``most`` tasks do not count."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    of_user = _of_user(root) if 0 <= soft <= most else ()  # this reads /proc for all processes
    rooms = (room for room in (*of_user, *_of_cgroups(root)) if room.limit <= most)
    return min((room for room in rooms if 10 * room.left < room.limit), default=None)


def quotas(root: Path = Path("/")) -> list[Quota]:
    """Return the quota of this process's cgroup, and of each above it. Those that are hidden are left out."""
    found = []
    for level in levels("cpu", root):
        with suppress(OSError, ValueError):  # no quota, or a hidden one
            if level.version == 2:
                quota, period = (level.folder / "cpu.max").read_text().split()
            else:
                quota = (level.folder / "cpu.cfs_quota_us").read_text()
                period = (level.folder / "cpu.cfs_period_us").read_text()
            if int(quota) > 0:
                found.append(Quota(int(quota) / int(period), level))
    return found


def usable_cpus(root: Path = Path("/")) -> float:
    """Return the number of CPUs that this process may use at a time, by its affinity and each cgroup's quota."""
    return min([float(len(os.sched_getaffinity(0))), *(quota.cpus for quota in quotas(root))])


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
    """Yield the real user and the number of tasks of each process."""
    for entry in (root / "proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, KeyError):  # the process has ended
                status = _status(entry / "status")
                yield int(status["Uid"].split()[0]), int(status["Threads"])


def _status(path: Path) -> dict[str, str]:
    fields = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in fields}
