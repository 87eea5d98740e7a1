"""Facts about the app and the machine: plain data, to be judged and shown. Times are seconds, memory is MiB."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..system.machine_limits import TaskRoom

__all__ = [
    "GraceFacts",
    "KernelFacts",
    "LimitFacts",
    "LoadFacts",
    "PackageCost",
    "SessionFacts",
    "WarmFacts",
    "WarmProcess",
]


@dataclass(frozen=True, slots=True)
class PackageCost:
    """Cost of the import of one package."""

    package: str
    self_seconds: float
    """Time in the package's own modules."""
    total_seconds: float
    """Time with all further imports of the package. Other packages may need these imports as well."""
    modules: int


@dataclass(frozen=True, slots=True)
class LoadFacts:
    """Facts about one real load of the app in a fresh interpreter."""

    import_seconds: float
    preload_seconds: float
    modules: int
    packages: tuple[PackageCost, ...]
    """Costs of the most expensive packages, in falling order."""
    threads: tuple[str, ...]
    """Names of the threads that imports and preload have left."""
    allowed_threads: tuple[str, ...]
    fds: tuple[str, ...]
    """Sentences about sockets, pipes and similar files that were left open, one for each."""
    children: tuple[str, ...]
    """Command lines and pids of the processes that were left running."""
    has_preload: bool
    has_prewarm: bool
    prewarm_name: str = "prewarm"
    """Name of ``prewarm`` in the app's framework."""
    remedies: str = ""
    """Sentences about libraries that may have started the threads."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Values that the app sets for Greenroom's settings: by name, a pair of value and origin."""


@dataclass(frozen=True, slots=True)
class WarmProcess:
    """Memory and threads of one process."""

    pid: int
    private_mb: float
    shared_mb: float
    pss_mb: float
    threads: int


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """Facts about one real session."""

    before: WarmProcess | None
    """Process of the session while it was idle; ``None`` if the session had no idle process."""
    after: WarmProcess | None
    """Same process at its largest private memory; ``None`` if the session ended before its memory could be read."""
    failure: str
    """Detail of the end, if the session did not succeed; else empty."""
    cpus: float | None = None
    """CPUs that the session took on average after its start-up; ``None`` if it ended before."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Facts about the memory of the zygote, and about its forks."""

    anonymous_mb: float
    """Memory that belongs to no file. A fork copies its page tables."""
    huge_pages_mb: float
    """Part of it in huge pages."""
    huge_pages_seconds: float
    """CPU time that the zygote took to move this part."""
    fork_seconds: tuple[float, ...]
    """Time of each fork, from the pool's request to the zygote's answer."""


@dataclass(frozen=True, slots=True)
class WarmFacts:
    """Facts about a real pool of the app with a few idle processes."""

    processes: tuple[WarmProcess, ...]
    idle_seconds: tuple[float, ...]
    """Time from the request for a process until the process was idle. The requests came one at a time."""
    prewarm_seconds: tuple[float, ...]
    image_mb: float
    """Resident memory of the zygote, which all processes share."""
    fds_per_process: float
    """Open files of the supervisor for each process."""
    failures: tuple[str, ...]
    """Reasons why processes did not become idle."""
    image: ImageFacts | None = None
    """Memory of the zygote; ``None`` without a zygote."""


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """Limits of this machine for this user."""

    available_mb: float | None
    """Available memory; ``None`` if it cannot be read."""
    memory_where: str
    """Origin of the tightest limit on memory: the machine, or a cgroup."""
    nofile_soft: int | None
    """Soft limit on open files; ``None`` if there is no limit."""
    nofile_hard: int | None
    """Hard limit on open files; ``None`` if there is no limit."""
    tasks: tuple[TaskRoom, ...]
    """Limits on tasks: nproc, pids cgroup, kernel."""
    cpus: float
    """CPUs that this process can use, by its affinity and the cgroup's quota."""


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """Features of the kernel and its mounts. A text is the error of a feature, and is empty if the feature works."""

    release: str
    pidfd: str
    subreaper: str
    lifeline: str
    memfd: str
    smaps_rollup: str
    psi: bool
    memory_delegated: bool
    missing_walls: dict[str, str]
    """Cause for each wall around sessions that cannot be raised on this machine."""
    shm_mb: float | None
    """Free memory in ``/dev/shm``; ``None`` if the folder is missing."""


@dataclass(frozen=True, slots=True)
class GraceFacts:
    """Grace period: the time from the request to stop the worker until the worker is killed."""

    seconds: float | None
    """Grace period; ``None`` if it is not known."""
    where: str
    """Setting with the grace period, and its file or unit."""
    is_kubernetes: bool
