"""Limits and features of the machine, as facts."""

from __future__ import annotations

import platform
import resource
from contextlib import suppress

from ..system import cgroup, kernel_features, machine_limits, machine_memory
from .facts import KernelFacts, LimitFacts

__all__ = ["read_kernel", "read_limits"]


def read_limits() -> LimitFacts:
    memory = None
    with suppress(FileNotFoundError):
        memory = machine_memory.tightest()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LimitFacts(
        available_mb=None if memory is None else memory.mb,
        memory_where="" if memory is None else memory.where,
        nofile_soft=_finite(soft),
        nofile_hard=_finite(hard),
        tasks=tuple(machine_limits.task_rooms()),
        cpus=machine_limits.usable_cpus(),
    )


def read_kernel() -> KernelFacts:
    """Test each kernel feature, some in processes of their own. This makes the calling process a child subreaper."""
    return KernelFacts(
        release=platform.release(),
        pidfd=kernel_features.pidfd(),
        subreaper=kernel_features.subreaper(),
        lifeline=kernel_features.lifeline(),
        memfd=kernel_features.memfd(),
        smaps_rollup=kernel_features.smaps_rollup(),
        psi=kernel_features.psi(),
        memory_delegated=cgroup.memory_is_delegated(),
        missing_walls=kernel_features.walls(),
        shm_mb=kernel_features.shm_free_mb(),
    )


def _finite(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit
