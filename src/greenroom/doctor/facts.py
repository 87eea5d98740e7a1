"""What was read from the app and the machine: plain data, to be judged and shown. Times are seconds, memory is MiB."""

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
    """What importing one package costs."""

    package: str
    self_seconds: float
    """Spent in its own modules."""
    total_seconds: float
    """With everything that they import, which others may need as well."""
    modules: int


@dataclass(frozen=True, slots=True)
class LoadFacts:
    """One real load of the app, in a fresh interpreter."""

    import_seconds: float
    preload_seconds: float
    modules: int
    packages: tuple[PackageCost, ...]
    """Those that dominate, the most expensive first."""
    threads: tuple[str, ...]
    """Threads left by imports and preload, by name."""
    allowed_threads: tuple[str, ...]
    fds: tuple[str, ...]
    """A sentence for each socket, pipe and the like that was left open."""
    children: tuple[str, ...]
    """Processes that were left running, by name."""
    has_preload: bool
    has_prewarm: bool
    prewarm_name: str = "prewarm"
    """What the app's framework calls it."""
    remedies: str = ""
    """Sentences on the libraries that are there and may start threads."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What the app sets of Greenroom's settings: by name, a pair of value and origin."""


@dataclass(frozen=True, slots=True)
class WarmProcess:
    """One idle process."""

    pid: int
    private_mb: float
    shared_mb: float
    pss_mb: float
    threads: int


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """One real session."""

    before: WarmProcess | None
    """Its process, idle; ``None``: there was none to start it in."""
    after: WarmProcess | None
    """The same, with its entrypoint at an end; ``None``: it ended before it could be looked at."""
    failure: str
    """How it ended, if not as completed."""


@dataclass(frozen=True, slots=True)
class WarmFacts:
    """A real pool of the app with a few idle processes."""

    processes: tuple[WarmProcess, ...]
    idle_seconds: tuple[float, ...]
    """From the request for each process until it was idle, one at a time."""
    prewarm_seconds: tuple[float, ...]
    image_mb: float
    """The zygote's resident memory, which every process shares."""
    fds_per_process: float
    """What the supervisor holds for each."""
    failures: tuple[str, ...]
    """Why processes did not become idle."""


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """This machine's bounds on this user."""

    available_mb: float | None
    """``None``: nothing tells."""
    memory_where: str
    """The machine, or the cgroup that leaves least."""
    nofile_soft: int | None
    nofile_hard: int | None
    """``None``: no limit."""
    tasks: tuple[TaskRoom, ...]
    """Each bound on tasks: nproc, pids cgroup, kernel."""
    cpus: float
    """Usable by this process: affinity, and the cgroup's quota."""


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What the kernel and its mounts offer. A text says what was wrong; ``""`` that it works."""

    release: str
    pidfd: str
    subreaper: str
    lifeline: str
    memfd: str
    smaps_rollup: str
    psi: bool
    memory_delegated: bool
    shm_mb: float | None
    """Free in ``/dev/shm``; ``None`` if it is not there."""


@dataclass(frozen=True, slots=True)
class GraceFacts:
    """How long whoever stops the worker waits before it kills."""

    seconds: float | None
    """``None``: not known."""
    where: str
    is_kubernetes: bool
