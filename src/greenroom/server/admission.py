"""Whether a session is taken: decided here, in one place, for every source.

Slots are counted, not guessed at: an offer is accepted against ``max_jobs``, the machine's free memory, and a
process that is reserved from that moment on. The app has the last word.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import GreenroomError, NoCapacity
from ..job import Job, Reject
from ..pool import JobHandle, ProcessPool, Reservation
from ..pool.events import Offered, TurnedDown
from ..pool.labels import tidy_labels
from .jobs import JobBook
from .memory import MemoryRoom

__all__ = ["Acceptance", "Admission", "Closed", "DuplicateJob", "Offer", "RejectedByApp"]


class DuplicateJob(GreenroomError):
    """A job id is in use, or was used by a job that ended not long ago."""


class RejectedByApp(NoCapacity):
    """The app's ``request`` function turned the session down, or failed. ``final``: no other worker need be asked."""

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message, reason="rejected_by_app", retry_after=5.0)
        self.final = final


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a worker takes no sessions, whatever its pool would say."""

    reason: str
    message: str
    retry_after: float


@dataclass(frozen=True, slots=True)
class Offer:
    """A session, as its source offers it."""

    source: str
    metadata: bytes
    """As a payload: see :mod:`greenroom.wire.payload`."""
    job_id: str | None = None
    timeout: float | None = None
    """How long it may wait for a process that is on its way; by default ``offer_timeout``."""
    traceparent: str | None = None
    """Of the trace that it belongs to, as W3C Trace Context writes it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What its source calls it: they stand in the log, in events and in the report."""


class Acceptance:
    """A session that was taken: a process is kept for it until it is started or released."""

    def __init__(self, reservation: Reservation, book: JobBook, answer: dict[str, Any], source: str) -> None:
        self._reservation = reservation
        self._book = book
        self.answer = answer
        """What the app wants its source to be told."""
        self.source = source

    @property
    def id(self) -> str:
        """The job's id."""
        return self._reservation.id

    def start(self, metadata: bytes | None = None, *, timeout: float | None = None) -> JobHandle:
        """Start the job, with other metadata (a payload) than was offered if there is any.

        Raises :class:`~greenroom.LaunchError` if it was kept for too long; see :meth:`JobHandle.started`.
        """
        order = None if metadata is None else Job.from_payload(self.id, metadata)
        handle = self._reservation.launch(order, timeout=timeout)
        self._book.add(handle)
        return handle

    def release(self, reason: str) -> None:
        """It is not wanted any more. After :meth:`start` this does nothing."""
        self._reservation.release(reason)


class Admission:
    """The one door through which sessions come in."""

    def __init__(self, pool: ProcessPool, book: JobBook, memory: MemoryRoom, offer_timeout: float) -> None:
        self.closed: Closed | None = None
        self._pool = pool
        self._book = book
        self._memory = memory
        self._offer_timeout = offer_timeout

    async def offer(self, offer: Offer) -> Acceptance:
        """Take a session, or turn it down with a reason.

        Raises :class:`~greenroom.NoCapacity` (of which :class:`RejectedByApp` is one kind), :class:`DuplicateJob`
        and :class:`~greenroom.PoolClosed`.
        """
        job_id = offer.job_id or f"job-{secrets.token_hex(6)}"
        whereabouts = self._book.whereabouts(job_id) or ("was offered before" if self._pool.has_job(job_id) else None)
        if whereabouts is not None:
            raise DuplicateJob(f"job id {job_id!r} is taken by a job that {whereabouts}")
        offer = replace(offer, labels=tidy_labels(offer.labels))
        self._pool.publish(Offered(job_id, offer.source, offer.traceparent, offer.labels))
        self._check(offer, job_id)
        return await self._reserve(offer, job_id)

    def problem(self) -> Closed | None:
        """Why a session would be turned down now, before any pool or app is asked; ``None`` if it would not."""
        return self.closed or self._memory_problem()

    def _check(self, offer: Offer, job_id: str) -> None:
        problem = self.problem()
        if problem is not None:
            self._pool.publish(TurnedDown(job_id, offer.source, problem.reason, problem.message, offer.labels))
            raise NoCapacity(problem.message, reason=problem.reason, retry_after=problem.retry_after)

    def _memory_problem(self) -> Closed | None:
        message = self._memory.problem(self._pool.stats())
        return None if message is None else Closed("memory", message, retry_after=2.0)

    async def _reserve(self, offer: Offer, job_id: str) -> Acceptance:
        timeout = self._offer_timeout if offer.timeout is None else offer.timeout
        job = Job.from_payload(job_id, offer.metadata)
        reservation = await self._pool.reserve(job, timeout=timeout, source=offer.source, labels=offer.labels)
        verdict = await reservation.ask()
        if isinstance(verdict, Reject):
            self._pool.publish(TurnedDown(job_id, offer.source, "rejected_by_app", verdict.reason, offer.labels))
            raise RejectedByApp(verdict.reason, final=verdict.final)
        return Acceptance(reservation, self._book, verdict.answer, offer.source)
