"""What happens in a pool, told to whoever wants to know: metrics, logs, a status page.

Events are delivered in order, in a turn of the event loop of their own, right after the one in which
they happened: whoever listens can neither delay the start of a session nor call back into half a change.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ..report import ExitReport
from .clock import wall_time
from .labels import Labels

__all__ = [
    "BreakerChanged",
    "ClaimFailed",
    "Draining",
    "Event",
    "EventBus",
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

_logger = logging.getLogger("greenroom")


def _now() -> float:
    return wall_time(time.monotonic())


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events."""

    at: float = field(default_factory=_now)
    """When it happened, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class ProcessChanged(Event):
    """A process has gone from one state to another; a new one comes from ``""``."""

    process_id: str
    pid: int | None
    generation: int
    before: str
    after: str
    job_id: str | None


@dataclass(frozen=True, slots=True)
class ProcessWarmed(Event):
    """A process has become idle for the first time."""

    process_id: str
    pid: int | None
    generation: int
    fork_seconds: float
    """From the request until the zygote's answer."""
    prewarm_seconds: float
    refill_seconds: float
    """From the request until it was idle."""


@dataclass(frozen=True, slots=True)
class ProcessEnded(Event):
    """A process has ended, whether it had a job or not."""

    report: ExitReport


@dataclass(frozen=True, slots=True)
class Offered(Event):
    """A source asks whether a session is taken; that it was accepted, turned down or released is told next."""

    job_id: str
    source: str
    traceparent: str | None = None
    """Of the trace that the session belongs to, as W3C Trace Context writes it."""
    labels: Labels = field(default_factory=dict, hash=False)
    """What its source calls the job."""


@dataclass(frozen=True, slots=True)
class Released(Event):
    """A process that was kept for a session, or looked for, is not any more: the order to start did not come."""

    job_id: str
    source: str
    process_id: str | None
    pid: int | None
    generation: int | None
    detail: str
    expired: bool
    """Whether ``reservation_timeout`` has passed."""
    labels: Labels = field(default_factory=dict, hash=False)
    """What its source calls the job."""


@dataclass(frozen=True, slots=True)
class JobAccepted(Event):
    """A job was taken on: it will start, or be reported as failed."""

    job_id: str
    source: str
    launch_type: Literal["warm", "cold"]
    labels: Labels = field(default_factory=dict, hash=False)
    """What its source calls the job."""


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """A process has acknowledged a job."""

    job_id: str
    source: str
    process_id: str
    pid: int | None
    generation: int
    launch_type: Literal["warm", "cold"]
    start_seconds: float
    """From the order until the acknowledgement."""
    queue_seconds: float
    """How much of that it waited for a process."""
    labels: Labels = field(default_factory=dict, hash=False)
    """What its source calls the job."""


@dataclass(frozen=True, slots=True)
class JobEnded(Event):
    """An accepted job is over, also one that never started."""

    report: ExitReport
    source: str


@dataclass(frozen=True, slots=True)
class ClaimFailed(Event):
    """A process that was given a job, or reserved for one, ended without having acknowledged it."""

    job_id: str
    process_id: str
    pid: int | None
    launch_type: Literal["warm", "cold"]
    cause: str
    retried: bool
    """Whether the job goes to another process."""
    labels: Labels = field(default_factory=dict, hash=False)
    """What its source calls the job."""


@dataclass(frozen=True, slots=True)
class TurnedDown(Event):
    """A session was turned down."""

    job_id: str
    source: str
    reason: str
    detail: str
    labels: Labels = field(default_factory=dict, hash=False)
    """What its source calls the job."""


@dataclass(frozen=True, slots=True)
class OfferAnswered(Event):
    """A source has told whoever offered a session whether it is taken; it took so long to find that out."""

    job_id: str
    source: str
    accepted: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class SourceChanged(Event):
    """Where sessions come from is connected, or is not."""

    source: str
    state: str
    detail: str


@dataclass(frozen=True, slots=True)
class Stalled(Event):
    """A job's event loop stands still; what is starved of CPU is left alone, anything else is ended."""

    process_id: str
    pid: int | None
    job_id: str | None
    kind: str


@dataclass(frozen=True, slots=True)
class MemorySampled(Event):
    """The memory that one process has to itself."""

    process_id: str
    pid: int
    state: str
    private_mb: float


@dataclass(frozen=True, slots=True)
class ZygoteStarted(Event):
    """New processes are forked from this one from now on; ``pid`` is ``None`` where they are spawned."""

    generation: int
    pid: int | None
    import_seconds: float
    preload_seconds: float


@dataclass(frozen=True, slots=True)
class ZygoteLost(Event):
    """The zygote that was forked from is gone; its processes go on, and another one is loaded."""

    generation: int
    pid: int
    cause: str


@dataclass(frozen=True, slots=True)
class Reloaded(Event):
    """New code serves; it took so many seconds to load it and to prove it."""

    generation: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ReloadFailed(Event):
    """New code did not load or become warm; the old goes on serving."""

    cause: str


@dataclass(frozen=True, slots=True)
class BreakerChanged(Event):
    """Sessions are turned down because processes do not become warm; or no longer."""

    is_open: bool
    cause: str | None


@dataclass(frozen=True, slots=True)
class PrewarmsBounded(Event):
    """Another number of processes may become warm at once, since one missed its time, or others kept it."""

    allowed: int
    most: int
    """The setting ``max_concurrent_prewarms``."""


@dataclass(frozen=True, slots=True)
class Resized(Event):
    num_idle_processes: int
    max_idle_processes: int | None


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """No more jobs are taken; those accepted have so many seconds."""

    timeout: float


class EventBus:
    """Passes events on to subscribers. To be used on one event loop."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Event], object]] = []
        self._pending: list[Event] = []

    def subscribe(self, fn: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``fn`` for each event from now on; returns what ends that."""
        self._subscribers.append(fn)

        def unsubscribe() -> None:
            if fn in self._subscribers:
                self._subscribers.remove(fn)

        return unsubscribe

    @property
    def has_subscribers(self) -> bool:
        """Whether it is worth making an event that costs something to make."""
        return bool(self._subscribers)

    def publish(self, event: Event) -> None:
        if not self._subscribers:
            return
        if not self._pending:
            asyncio.get_running_loop().call_soon(self.flush)
        self._pending.append(event)

    def flush(self) -> None:
        """Deliver what has happened so far."""
        events, self._pending = self._pending, []
        for event in events:
            for fn in list(self._subscribers):
                try:
                    fn(event)
                except Exception:
                    # One that fails to listen must not keep the others from hearing, nor the pool from working.
                    _logger.exception("%r failed at %r", fn, event)
