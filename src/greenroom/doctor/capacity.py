"""Number of sessions that the machine can hold, by each of its limits. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from ..options import PoolOptions
from ..settings.open_files import FDS_PER_PROCESS, sessions_within
from .facts import LimitFacts, WarmFacts

__all__ = ["Bound", "bounds"]

HEADROOM = 0.9
"""Share of the available memory, and of the CPUs, that counts. Caches, other programs and starts need the rest."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Number of sessions that one limit allows."""

    limit: str
    sessions: int
    detail: str
    remedy: str


def bounds(
    warm: WarmFacts, limits: LimitFacts, options: PoolOptions, session_mb: float, session_cpus: float | None = None
) -> list[Bound]:
    """Return the bounds, the tightest first.

    ``session_mb`` is the memory of a running session beyond that of an idle process, in MiB. The idle processes are
    subtracted, since they exist beside the sessions. ``session_cpus`` is ``None`` if no session was measured.
    """
    found = [_of_memory(warm, limits, options, session_mb), _of_tasks(warm, limits, options)]
    if session_cpus is not None:
        found.append(_of_cpus(limits, session_cpus))
    if limits.nofile_hard is not None:
        found.append(_of_files(warm, limits.nofile_hard, options))
    return sorted((bound for bound in found if bound is not None), key=lambda bound: bound.sessions)


def _of_memory(warm: WarmFacts, limits: LimitFacts, options: PoolOptions, session_mb: float) -> Bound | None:
    if limits.available_mb is None:
        return None
    private = median(process.private_mb for process in warm.processes)
    usable = limits.available_mb * HEADROOM - warm.image_mb - private * options.num_idle_processes
    detail = (
        f"{limits.available_mb:,.0f} MiB available ({limits.memory_where}), less {1 - HEADROOM:.0%} headroom, "
        f"{warm.image_mb:,.0f} MiB for the loaded app and {options.num_idle_processes} idle processes; "
        f"{private + session_mb:.1f} MiB for each session"
    )
    remedy = "add memory, raise the memory limit, or write to less memory in prewarm and in the job"
    return Bound("memory", _whole(usable / max(private + session_mb, 0.01)), detail, remedy)


def _of_cpus(limits: LimitFacts, session_cpus: float) -> Bound:
    detail = (
        f"{limits.cpus:g} CPUs, less {1 - HEADROOM:.0%} headroom; the measured session took {session_cpus:.1%} of a "
        "CPU after its start"
    )
    remedy = "add CPUs, or compute less in a session"
    return Bound("CPU", _whole(limits.cpus * HEADROOM / max(session_cpus, 1e-4)), detail, remedy)


def _of_files(warm: WarmFacts, hard: int, options: PoolOptions) -> Bound:
    detail = (
        f"the hard limit is {hard:,} open files; the worker reserves {FDS_PER_PROCESS} for each process, and now "
        f"uses {warm.fds_per_process:.1f}"
    )
    remedy = "raise the hard limit: ulimit -Hn, LimitNOFILE= (systemd), --ulimit nofile (Docker)"
    return Bound("open files", sessions_within(hard, options), detail, remedy)


def _of_tasks(warm: WarmFacts, limits: LimitFacts, options: PoolOptions) -> Bound | None:
    if not limits.tasks:
        return None
    room = limits.tasks[0]
    each = max(process.threads for process in warm.processes)
    detail = f"{room.left:,} of {room.limit:,} are free ({room.where}); an idle process has {each}"
    return Bound("tasks", _whole(room.left / each) - _waiting(options), detail, room.remedy)


def _waiting(options: PoolOptions) -> int:
    return options.num_idle_processes + options.max_concurrent_prewarms


def _whole(number: float) -> int:
    return max(math.floor(number), 0)
