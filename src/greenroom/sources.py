"""Sources of jobs, and the interface through which a source sees its worker.

A source brings jobs to a worker: by HTTP, or from a LiveKit server. A source imports this module, and nothing of
:mod:`greenroom.server` or :mod:`greenroom.pool`. A worker's sources are composed in one place:
:mod:`greenroom.server.worker_assembly`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .errors import GreenroomError, NoCapacity, RejectionReason
from .options import PoolOptions
from .pool import JobHandle, NoAnswer, PoolStats

__all__ = [
    "Acceptance",
    "Closed",
    "DuplicateJob",
    "Host",
    "JobHandle",
    "Listener",
    "NoAnswer",
    "Offer",
    "PoolStats",
    "RejectedByApp",
    "ResidentProcess",
    "Source",
]


class DuplicateJob(GreenroomError):
    """Job id that belongs to a live job, or to a job that ended a short time ago."""


class RejectedByApp(NoCapacity):
    """Rejection by the request hook, or failure of the hook. With ``final``, the source should ask no other worker."""

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message, reason="rejected_by_app", retry_after=5.0)
        self.final = final


@dataclass(frozen=True, slots=True)
class Closed:
    """Reason why a worker takes no jobs. ``retry_after`` is in seconds."""

    reason: RejectionReason
    message: str
    retry_after: float


@dataclass(frozen=True, slots=True)
class Offer:
    """Job that a source offers to the worker."""

    source: str
    metadata: bytes
    """Payload: see :mod:`greenroom.wire.payload`."""
    job_id: str | None = None
    timeout: float | None = None
    """Longest wait for a warming process, in seconds; by default ``offer_timeout``."""
    traceparent: str | None = None
    """Trace to which the job belongs, in the form of W3C Trace Context."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Names from the source, for the log, events and the report."""
    shown: bytes | None = None
    """Metadata that people know the job by, as JSON, if it is not ``metadata`` itself."""
    takes_promise: bool = False
    """Accept the job at once if no process is idle, and one is certain to be idle within ``timeout``."""
    stalls_before: float | None = None
    """Number of stalls of the worker that were over before the job was sent: :meth:`Host.stalls_over` at the moment in
    which the source read it. ``None``: at the moment of the offer. ``math.inf``: nobody waits for an answer."""


class Acceptance(Protocol):
    """Accepted job. A process is reserved for the job, or promised, until :meth:`start` or :meth:`release`."""

    @property
    def id(self) -> str:
        """Id of the job."""

    @property
    def answer(self) -> dict[str, Any]:
        """Answer of the request hook, for the source."""

    def start(self, metadata: bytes | None = None, *, timeout: float | None = None) -> JobHandle:
        """Begin the start of the job. ``metadata`` (a payload) replaces the metadata of the offer.

        Raises :class:`~greenroom.LaunchError` if the reservation has expired. :meth:`JobHandle.started` waits for the
        start.
        """

    def release(self, reason: str) -> None:
        """Release the process. A call after :meth:`start` does nothing."""


class ResidentProcess(Protocol):
    """Resident process of the code that serves. ``App.answers`` and ``App.hears`` declare its topics."""

    def takes(self, topic: str) -> bool:
        """Return true if the serving app declares this topic."""

    async def ask(self, topic: str, data: Any = None, *, timeout: float) -> Any:
        """Return the app's answer within ``timeout`` seconds. Raises :class:`NoAnswer` with the cause."""

    def set_news(self, topic: str, key: str, data: Any) -> None:
        """Send news to the resident process, and to each later one.

        The news holds until :meth:`drop_news`, or until newer news with the same key.
        """

    def drop_news(self, topic: str, key: str) -> None:
        """Withdraw the news with this key."""


class Listener:
    """Methods that a host calls on its event loop. A subclass overrides some of them. None of them may block."""

    def app_loaded(self) -> None:
        """Take note of a load of the app, the first or a later one. :attr:`Host.manifest` is known now."""

    def reloaded(self) -> None:
        """Take note that new code serves."""

    def job_ended(self, job_id: str) -> None:
        """Take note of the end of a job."""

    def changed(self) -> None:
        """Take note of any change in the pool: :meth:`Host.stats` may differ."""


class Host(Protocol):
    """Worker, as a source sees it."""

    @property
    def options(self) -> PoolOptions:
        """Settings of the pool."""

    @property
    def resident(self) -> ResidentProcess:
        """Resident process of the code that serves."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Data of the app for integrations, by the name of the integration; empty until the app has loaded."""

    async def offer(self, offer: Offer) -> Acceptance:
        """Reserve a process for a job and ask the request hook.

        Raises :class:`~greenroom.NoCapacity`, :class:`RejectedByApp`, :class:`DuplicateJob` or
        :class:`~greenroom.PoolClosed`.
        """

    def problem(self) -> Closed | None:
        """Return the reason why the worker takes no jobs now, or ``None``. The state of the pool does not count."""

    def stalls_over(self) -> int:
        """Return how many stalls of the worker are over. Whatever is read from a socket now was sent after them."""

    def further_jobs(self) -> int:
        """Return how many more jobs ``max_jobs``, the memory and the CPUs allow.

        Raises :class:`~greenroom.PoolClosed`.
        """

    def stats(self) -> PoolStats:
        """Return the counts of the pool. Raises :class:`~greenroom.PoolClosed`."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Register a listener. The returned function removes it."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task until the source has closed.

        The host logs an exception of the task, and cancels the task after the close.
        """

    def report_offer(self, job_id: str, labels: Mapping[str, str]) -> None:
        """Publish an offer that the source itself rejects. :meth:`offer` publishes all others."""

    def report_rejection(self, job_id: str, reason: RejectionReason, message: str, labels: Mapping[str, str]) -> None:
        """Publish a rejection by the source itself. ``reason`` is one word for metrics, ``message`` is a sentence."""

    def report_answer(self, job_id: str, *, accepted: bool, seconds: float) -> None:
        """Publish the answer to an offer, and the time from the offer to the answer."""

    def report_state(self, state: str, detail: str) -> None:
        """Publish a change of the source's state."""


class Source(Protocol):
    """Source of jobs.

    A source makes an :class:`Offer` from each job that arrives, and passes the offer to :meth:`Host.offer`. The result
    is an :class:`Acceptance`, which the source starts or releases, or an error with the reason.
    """

    @property
    def name(self) -> str:
        """Name in metrics, events and logs."""

    def attach(self, host: Host) -> None:
        """Receive the host. The worker calls this once, before the app loads."""

    def status(self) -> dict[str, Any]:
        """Return plain data for operators; ``state`` is one word."""

    async def open(self) -> None:
        """Begin to take jobs.

        The worker calls this when the pool is warm, and cancels a call that takes too long. The end of the worker
        cancels the call, too. Raises :class:`GreenroomError` if the settings allow no jobs.
        """

    def pause(self) -> None:
        """Take no more jobs, because the worker drains. Accepted jobs go on, and the source reports their ends."""

    async def close(self) -> None:
        """Close the source after the last job has ended.

        The worker calls this also without :meth:`open`, and cancels a call that takes too long.
        """
