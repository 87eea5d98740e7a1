"""Findings from the facts about a machine: capacity, limits, kernel, grace periods. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..options import PoolOptions
from ..settings.worker_options import MARGIN, longest_stop
from .capacity import Bound
from .facts import GraceFacts, KernelFacts, LimitFacts
from .findings import Finding, note, ok, problem, warning

__all__ = ["of_capacity", "of_grace", "of_kernel", "of_limits"]

_LITTLE_SHM = 64.0

_NEEDED = (
    ("pidfd", "processes held by pidfd", "Linux 5.4 or later, and a seccomp profile that lets pidfd_open pass"),
    ("subreaper", "adopting orphans (subreaper)", "a seccomp profile that lets prctl pass"),
    ("lifeline", "the lifeline (F_SETSIG)", "a kernel that delivers signals on pipes; gVisor and WSL1 do not"),
    ("memfd", "the heartbeat page (memfd_create)", "a seccomp profile that lets memfd_create pass"),
    ("smaps_rollup", "memory by process (smaps_rollup)", "Linux 4.14 or later with /proc mounted"),
)


def of_capacity(bounds: list[Bound], options: PoolOptions, session_mb: float) -> Iterator[Finding]:
    """Judge the capacity. ``bounds`` begin with the tightest."""
    if not bounds:
        return
    first = bounds[0]
    others = "; ".join(f"{bound.limit}: {bound.sessions:,}" for bound in bounds[1:])
    found = f"this machine can hold {first.sessions:,} sessions; the tightest limit is {first.limit} ({first.detail})"
    found += f". Other limits: {others}" if others else ""
    if first.sessions == 0:
        yield problem("capacity", found, first.remedy)
    elif first.sessions < options.max_jobs:
        todo = f"set max_jobs to {first.sessions} or less (it is {options.max_jobs}), or {first.remedy}"
        yield warning("capacity", found, todo)
    else:
        yield ok("capacity", f"{found}. max_jobs is {options.max_jobs}")
    if session_mb == 0:
        todo = "measure the memory of a running session, and repeat with --session-mb"
        yield note("capacity", "this count assumes that a session uses no more memory than an idle process", todo)


def of_limits(limits: LimitFacts, bounds: list[Bound]) -> Iterator[Finding]:
    soft, hard = (_number(limit) for limit in (limits.nofile_soft, limits.nofile_hard))
    if limits.available_mb is None:
        todo = "remove ProcSubset=pid, or set MemoryMax=. Otherwise min_free_memory_mb has no effect"
        yield warning("limits", "/proc shows only processes (ProcSubset=pid), so the free memory is unknown", todo)
    yield ok("limits", f"open files: soft {soft}, hard {hard} (the worker raises its soft limit to the hard limit)")
    for room in limits.tasks:
        yield ok("limits", f"tasks: {room.left:,} of {room.limit:,} are free ({room.where})")
    yield ok("limits", f"CPUs: {limits.cpus:g}")
    sessions = bounds[0].sessions if bounds else 0
    if limits.cpus and sessions / limits.cpus > 200:
        todo = "measure the CPU time of a session in a load test, and set max_jobs accordingly"
        yield note("limits", f"the CPUs may be the tightest limit: {sessions:,} sessions on {limits.cpus:g} CPUs", todo)


def of_kernel(kernel: KernelFacts, options: PoolOptions) -> Iterator[Finding]:
    broken = False
    for name, feature, needs in _NEEDED:
        complaint: str = getattr(kernel, name)
        if complaint:
            broken = True
            yield problem("kernel", f"{feature} does not work: {complaint}", f"this needs {needs}")
    if not broken:
        names = "pidfd, subreaper, lifeline, memfd and smaps_rollup"
        yield ok("kernel", f"Linux {kernel.release}: {names} work")
    yield from _of_memory_control(kernel, options)
    yield from _of_walls(kernel, options)
    if not kernel.psi:
        yield note("kernel", "no pressure stall information", "boot with psi=1 to see waits for memory and CPU")
    if kernel.shm_mb is None or kernel.shm_mb < _LITTLE_SHM:
        size = "is missing" if kernel.shm_mb is None else f"has {kernel.shm_mb:.0f} MiB free"
        todo = "Greenroom does not need it. An app with multiprocessing or torch needs it (docker run --shm-size=1g)"
        yield note("kernel", f"/dev/shm {size}", todo)


def _of_walls(kernel: KernelFacts, options: PoolOptions) -> Iterator[Finding]:
    if options.walls == "off":
        todo = "set walls to auto, unless sessions need programs with a setuid bit"
        yield note("walls", "walls are off: a session can signal and read the worker and other sessions", todo)
    elif not kernel.missing_walls:
        text = "a session cannot signal, read or limit the worker or another session, or reach abstract sockets outside"
        yield ok("walls", text)
    else:
        found = "; ".join(f"no wall for {name}: {cause}" for name, cause in kernel.missing_walls.items())
        todo = "use Linux 6.12 or later with Landlock, and run the worker as a user without capabilities"
        yield (problem if options.walls == "require" else note)("walls", found, todo)


def _of_memory_control(kernel: KernelFacts, options: PoolOptions) -> Iterator[Finding]:
    if kernel.memory_delegated:
        yield ok("kernel", "a cgroup v2 subtree is delegated: the kernel enforces memory_limit_mb")
        return
    found = "no cgroup v2 subtree with the memory controller is delegated"
    if options.memory_limit_mb is None:
        found += "; Greenroom would enforce memory_limit_mb, which is off, by sampling each process"
        yield note("kernel", found, "only a hard limit needs a subtree: Delegate=memory (systemd)")
    else:
        found += f"; Greenroom enforces memory_limit_mb ({options.memory_limit_mb:g}) by sampling each process"
        todo = "a fast allocation can exceed it for a moment. Set Delegate=memory and DelegateSubgroup= (systemd 254)"
        yield note("kernel", found, todo)


def of_grace(grace: GraceFacts, options: PoolOptions, drain_timeout: float) -> Iterator[Finding]:
    needed = longest_stop(options, drain_timeout)
    parts = (
        f"drain_timeout {drain_timeout:g} s + twice shutdown_timeout {options.shutdown_timeout:g} s + "
        f"cleanup_timeout {options.cleanup_timeout:g} s + {MARGIN:g} s"
    )
    if grace.seconds is None:
        where = "terminationGracePeriodSeconds" if grace.is_kubernetes else "TimeoutStopSec or the like"
        found = f"a full drain takes up to {needed:g} s ({parts}); the grace period of this worker is not known"
        yield note(
            "grace", found, f"set {where} to at least {needed:g} s; --deployment FILE checks a unit or a manifest"
        )
    elif grace.seconds < needed:
        found = f"{grace.where} is {grace.seconds:g} s, but a full drain takes up to {needed:g} s ({parts})"
        todo = (
            f"sessions would be killed during the drain. Raise the grace period to {needed:g} s, or lower drain_timeout"
        )
        yield problem("grace", found, todo)
    else:
        yield ok("grace", f"{grace.where} is {grace.seconds:g} s; a full drain takes up to {needed:g} s ({parts})")
    yield from _of_job_timeout(options, drain_timeout)


def _of_job_timeout(options: PoolOptions, drain_timeout: float) -> Iterator[Finding]:
    limit = options.job_timeout
    if limit is None:
        todo = "set job_timeout to the longest session that you want, so that a session that never ends frees its slot"
        yield note("grace", "job_timeout is off: a session may run for ever", todo)
    elif limit > drain_timeout:
        todo = "raise drain_timeout if a deployment must not cut sessions short"
        found = f"a session may run for {limit:g} s, but a drain waits {drain_timeout:g} s and then ends it"
        yield note("grace", found, todo)


def _number(limit: int | None) -> str:
    return "unlimited" if limit is None else f"{limit:,}"
