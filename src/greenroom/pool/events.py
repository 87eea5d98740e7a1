"""Events of a pool, for metrics, logs, traces and a status page."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal, TypeVar, dataclass_transform

from ..errors import RejectionReason
from ..exit_report import ExitReport
from ..job_labels import Labels
from .core.stalls import Stall
from .wall_clock import wall_time

__all__ = [
    "BreakerChanged",
    "ClaimFailed",
    "Draining",
    "Event",
    "JobAccepted",
    "JobEnded",
    "JobStarted",
    "MemorySampled",
    "OfferAnswered",
    "Offered",
    "PrewarmsBounded",
    "ProcessChanged",
    "ProcessEnded",
    "ProcessWarmed",
    "Released",
    "ReloadFailed",
    "Reloaded",
    "Resized",
    "SourceChanged",
    "Stalled",
    "TurnedDown",
    "ZygoteLost",
    "ZygoteStarted",
]


STALL_KINDS = tuple(stall.value for stall in Stall)
"""All values of :attr:`Stalled.kind`."""


def _now() -> float:
    return wall_time(time.monotonic())


Made = TypeVar("Made")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def _event(made: type[Made]) -> type[Made]:
    """Make a dataclass that is frozen for the type checker only. A really frozen one takes longer to make."""
    return dataclass(slots=True, unsafe_hash=True)(made)


@_event
class Event:
    """Base class of all events."""

    at: float = field(default_factory=_now, kw_only=True)
    """Time of the event."""


@_event
class ProcessChanged(Event):
    """Change of a process's public state."""

    process_id: str
    """Id of the process, unique in the pool."""
    pid: int | None
    """Process id of the operating system; ``None`` before the fork."""
    generation: int
    """Number of the generation of code."""
    before: str
    """Public state before the change; ``""`` for a new process."""
    after: str
    """Public state after the change."""
    job_id: str | None
    """Id of the job that the process has, if any."""


@_event
class ProcessWarmed(Event):
    """First time that a process became idle."""

    process_id: str
    """Id of the process."""
    pid: int | None
    """Process id of the operating system."""
    generation: int
    """Number of the generation of code."""
    fork_seconds: float
    """Time from the pool's request to the zygote's answer."""
    prewarm_seconds: float
    """Time that the app's ``prewarm`` took."""
    refill_seconds: float
    """Time from the pool's request until the process was idle."""


@_event
class ProcessEnded(Event):
    """End of a process, with or without a job."""

    report: ExitReport
    """Report of the end."""


@_event
class Offered(Event):
    """Offer of a job by a source. ``TurnedDown``, ``JobAccepted`` or ``Released`` follows."""

    job_id: str
    """Id of the job."""
    source: str
    """Name of the source, such as ``http`` or ``livekit``."""
    traceparent: str | None = None
    """W3C Trace Context of the caller, if the source has one."""
    labels: Labels = field(default_factory=dict, hash=False)
    """Names that the source has for the job."""


@_event
class Released(Event):
    """End of a reservation that was not launched."""

    job_id: str
    """Id of the job."""
    source: str
    """Name of the source."""
    process_id: str | None
    """Id of the reserved process; ``None`` if the reservation still waited for one."""
    pid: int | None
    """Process id of the operating system."""
    generation: int | None
    """Number of the generation of code."""
    detail: str
    """Cause, in a sentence."""
    expired: bool
    """True if ``reservation_timeout`` has passed."""
    labels: Labels = field(default_factory=dict, hash=False)
    """Names that the source has for the job."""


@_event
class JobAccepted(Event):
    """Acceptance of a job. The job will start, or will be reported as failed."""

    job_id: str
    """Id of the job."""
    source: str
    """Name of the source."""
    launch_type: Literal["warm", "cold"]
    """``warm`` if an idle process was there at once, else ``cold``."""
    labels: Labels = field(default_factory=dict, hash=False)
    """Names that the source has for the job."""


@_event
class JobStarted(Event):
    """Acknowledgement of a job by its process."""

    job_id: str
    """Id of the job."""
    source: str
    """Name of the source."""
    process_id: str
    """Id of the process."""
    pid: int | None
    """Process id of the operating system."""
    generation: int
    """Number of the generation of code."""
    launch_type: Literal["warm", "cold"]
    """``warm`` if an idle process was there at once, else ``cold``."""
    start_seconds: float
    """Time from the launch to the acknowledgement."""
    queue_seconds: float
    """Part of ``start_seconds`` in which the job waited for a process."""
    labels: Labels = field(default_factory=dict, hash=False)
    """Names that the source has for the job."""
    app_version: str = ""
    """Version of the app's code in the process; empty if the app names none."""


@_event
class JobEnded(Event):
    """End of an accepted job, also of one that never started."""

    report: ExitReport
    """Report of the end."""
    source: str
    """Name of the source."""


@_event
class ClaimFailed(Event):
    """Loss of a reserved or claimed process before it acknowledged its job."""

    job_id: str
    """Id of the job."""
    process_id: str
    """Id of the lost process."""
    pid: int | None
    """Process id of the operating system."""
    launch_type: Literal["warm", "cold"]
    """``warm`` if an idle process was there at once, else ``cold``."""
    cause: str
    """Cause of the loss, in a sentence."""
    retried: bool
    """True if the job gets another process."""
    labels: Labels = field(default_factory=dict, hash=False)
    """Names that the source has for the job."""


@_event
class TurnedDown(Event):
    """Rejection of a job."""

    job_id: str
    """Id of the job."""
    source: str
    """Name of the source."""
    reason: RejectionReason
    """Name of the reason, such as ``full`` or ``warming``."""
    detail: str
    """Cause, in a sentence."""
    labels: Labels = field(default_factory=dict, hash=False)
    """Names that the source has for the job."""


@_event
class OfferAnswered(Event):
    """Answer of a source to an offer."""

    job_id: str
    """Id of the job."""
    source: str
    """Name of the source."""
    accepted: bool
    """True if the answer was yes."""
    seconds: float
    """Time from the offer to the answer."""


@_event
class SourceChanged(Event):
    """Change of a source's connection."""

    source: str
    """Name of the source."""
    state: str
    """State of the source, such as ``connected`` or ``disconnected``."""
    detail: str
    """Cause, in a sentence."""


@_event
class Stalled(Event):
    """Stall of a process's event loop. A process that only lacks CPU is left alone; any other one is ended."""

    process_id: str
    """Id of the process."""
    pid: int | None
    """Process id of the operating system."""
    job_id: str | None
    """Id of the job that the process has, if any."""
    kind: str
    """Class of the stall, such as ``loop blocked`` or ``starved of CPU``."""


@_event
class MemorySampled(Event):
    """Sample of the private memory of one process."""

    process_id: str
    """Id of the process."""
    pid: int
    """Process id of the operating system."""
    state: str
    """Public state of the process."""
    private_mb: float
    """Memory that the process does not share with others."""


@_event
class ZygoteStarted(Event):
    """Start of a zygote. From now on, new processes are forked from this zygote."""

    generation: int
    """Number of the generation of code."""
    pid: int | None
    """Process id of the zygote; ``None`` with ``start_method="spawn"``."""
    import_seconds: float
    """Time that the import of the app took."""
    preload_seconds: float
    """Time that the app's ``preload`` took."""
    anonymous_mb: float
    """Memory of the zygote that belongs to no file. A fork copies its page tables."""
    huge_pages_mb: float
    """Part of it that is in huge pages, so that forks are faster."""
    huge_pages_seconds: float
    """CPU time that the zygote took to move this part."""


@_event
class ZygoteLost(Event):
    """Loss of the zygote of the serving generation. Its processes go on, and another zygote is loaded."""

    generation: int
    """Number of the generation of code."""
    pid: int
    """Process id of the lost zygote."""
    cause: str
    """Cause, in a sentence."""


@_event
class Reloaded(Event):
    """Success of a reload. New jobs run on the new code from now on."""

    generation: int
    """Number of the new generation of code."""
    seconds: float
    """Time to load and to prove the new code."""


@_event
class ReloadFailed(Event):
    """Failure of a reload. New jobs still run on the old code."""

    cause: str
    """Cause, in a sentence."""


@_event
class BreakerChanged(Event):
    """Change of the circuit breaker, which rejects jobs while processes do not become warm."""

    is_open: bool
    """True if jobs are rejected from now on."""
    cause: str | None
    """Cause, if the breaker has opened."""


@_event
class PrewarmsBounded(Event):
    """Change of the number of processes that may become warm at the same time.

    The number falls when a process has missed ``prewarm_timeout`` beside others. It rises when processes keep it.
    """

    allowed: int
    """Number of processes that may become warm at the same time from now on."""
    most: int
    """Value of the setting ``max_concurrent_prewarms``."""


@_event
class Resized(Event):
    """Change of the number of idle processes by :meth:`ProcessPool.resize`."""

    num_idle_processes: int
    """New value of ``num_idle_processes``."""
    max_idle_processes: int | None
    """New value of ``max_idle_processes``; ``None`` stands for ``auto``."""


@_event
class Draining(Event):
    """Start of a drain. New jobs are rejected from now on."""

    timeout: float
    """Time that accepted jobs have to end."""
