"""Admission of jobs, in one place for all sources of jobs.

The checks of an offer, in this order:

1. The job id is not in use.
2. The worker takes jobs: ``Admission.closed`` is ``None``.
3. The job has not waited while the worker stood still: see :mod:`.stall_guard`.
4. The machine has memory and CPU time for one more job.
5. The pool reserves a process. The pool checks ``max_jobs``, too: see :mod:`greenroom.pool.core.job_queue`.
6. The app's request hook accepts the job. The hook is asked in a resident process of the app, not in the reserved one.
7. The worker has not stood still meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..errors import NoCapacity, RejectionReason
from ..job import Job, Reject
from ..job_labels import tidy_labels
from ..pool import JobHandle, PoolStats, ProcessPool, Reservation
from ..pool.events import Offered, TurnedDown
from ..sources import Closed, DuplicateJob, Offer, RejectedByApp
from ..wire import payload
from .history.history import History
from .history.job_traces import JobTraces
from .job_registry import JobRegistry
from .machine.cpu_room import CpuCosts
from .machine.room import MachineRoom, Room
from .stall_guard import StallGuard

__all__ = ["Admission", "not_ready"]

_STALLED = Closed(
    "stalled",
    "the worker stood still while the job waited. The job does not run, and will not. Send it again",
    retry_after=1.0,
)


class _Acceptance:
    """Implementation of :class:`greenroom.sources.Acceptance`."""

    def __init__(self, reservation: Reservation, registry: JobRegistry, answer: dict[str, Any], source: str) -> None:
        self._reservation = reservation
        self._registry = registry
        self.answer = answer
        """Answer of the request hook, for the source."""
        self.source = source

    @property
    def id(self) -> str:
        """Id of the job."""
        return self._reservation.id

    def start(self, metadata: bytes | None = None, *, timeout: float | None = None) -> JobHandle:
        """Begin the start of the job. ``metadata`` (a payload) replaces the metadata of the offer.

        Raises :class:`~greenroom.LaunchError` if the reservation has expired. :meth:`JobHandle.started` waits for the
        start, and raises the error of a job that does not start.
        """
        job = None if metadata is None else Job.from_payload(self.id, metadata)
        handle = self._reservation.launch(job, timeout=timeout)
        self._registry.add(handle)
        return handle

    def release(self, reason: str) -> None:
        """Release the process. A call after :meth:`start` does nothing."""
        self._reservation.release(reason)


class Admission:
    """Admission of jobs to a pool. While ``closed`` is set, each job is rejected with the reason in ``closed``."""

    def __init__(
        self,
        pool: ProcessPool,
        registry: JobRegistry,
        machine: MachineRoom,
        history: History,
        *,
        new_job_id: Callable[[], str],
        offer_timeout: float,
        stalls: StallGuard,
        traces: JobTraces | None = None,
    ) -> None:
        self._traces = traces or JobTraces()
        self.closed: Closed | None = None
        self._pool = pool
        self._registry = registry
        self._machine = machine
        self._history = history
        self._new_job_id = new_job_id
        self._offer_timeout = offer_timeout
        self.stalls = stalls

    @property
    def is_draining(self) -> bool:
        """True if the worker takes no more jobs until its end."""
        return self.closed is not None and self.closed.reason == "draining"

    @property
    def cpu_costs(self) -> CpuCosts:
        """CPU time that jobs take, and their waits for a CPU."""
        return self._machine.cpu.costs

    @property
    def available_mb(self) -> float | None:
        """Memory (MiB) that is available on the machine or in the cgroup; ``None`` if that is not known."""
        return self._machine.memory.available_mb()

    async def offer(self, offer: Offer) -> _Acceptance:
        """Accept a job, or reject the job with a reason. Raises:

        - :class:`DuplicateJob`: the id belongs to a live job, or to a job that ended a short time ago.
        - :class:`~greenroom.NoCapacity`: the worker or the pool takes no job now, or the machine has no room.
        - :class:`RejectedByApp`, a subclass of :class:`~greenroom.NoCapacity`: the app's request hook rejects the job.
        - :class:`~greenroom.LaunchError`: the reservation has ended before the answer of the request hook.
        - :class:`~greenroom.PoolClosed`: the pool is not open.
        """
        if offer.stalls_before is None:
            offer = replace(offer, stalls_before=self.stalls.over)
        job_id = offer.job_id or self._new_job_id()
        whereabouts = self._registry.whereabouts(job_id) or (
            "was offered before" if self._pool.has_job(job_id) else None
        )
        if whereabouts is not None:
            raise DuplicateJob(f"job id {job_id!r} is taken by a job that {whereabouts}")
        offer = replace(offer, labels=tidy_labels(offer.labels))
        self._history.offered(job_id, _shown(offer))
        self._traces.begin(job_id, offer.traceparent)  # now: the job may start before the event is delivered
        self._pool.publish(Offered(job_id, offer.source, offer.traceparent, offer.labels))
        self._check(offer, job_id)
        return await self._reserve(offer, job_id)

    def problem(self) -> Closed | None:
        """Return why every job is rejected now, without asking the pool or the app. Return ``None`` if jobs are taken.

        Raises :class:`~greenroom.PoolClosed`: the checks of the machine read the counts of the pool.
        """
        return self.closed or self._machine.problem(self._pool.stats())

    def room(self) -> Room:
        """Return the room for further jobs, and its limit. Raises :class:`~greenroom.PoolClosed`."""
        return self._machine.room(self._pool.stats(), self._pool.options)

    def _check(self, offer: Offer, job_id: str) -> None:
        problem = self.closed or self._stalled(offer) or self.problem()
        if problem is not None:
            raise self._no_capacity(offer, job_id, problem)

    def _stalled(self, offer: Offer) -> Closed | None:
        """Return the rejection of a job that has waited while the worker stood still, else ``None``."""
        return _STALLED if (offer.stalls_before or 0) < self.stalls.count else None

    def _no_capacity(self, offer: Offer, job_id: str, problem: Closed) -> NoCapacity:
        """Publish a rejection, and return the error for it."""
        self._pool.publish(TurnedDown(job_id, offer.source, problem.reason, problem.message, offer.labels))
        return NoCapacity(problem.message, reason=problem.reason, retry_after=problem.retry_after)

    async def _reserve(self, offer: Offer, job_id: str) -> _Acceptance:
        timeout = self._offer_timeout if offer.timeout is None else offer.timeout
        job = Job.from_payload(job_id, offer.metadata)
        reservation = await self._pool.reserve(
            job, timeout=timeout, source=offer.source, labels=offer.labels, takes_promise=offer.takes_promise
        )
        verdict = await reservation.ask()
        if isinstance(verdict, Reject):  # ask() has released the reservation
            self._pool.publish(TurnedDown(job_id, offer.source, "rejected_by_app", verdict.reason, offer.labels))
            raise RejectedByApp(verdict.reason, final=verdict.final)
        stalled = self._stalled(offer)
        if stalled is not None:  # since the checks, while the job waited for its process or for the app
            reservation.release(stalled.message)
            raise self._no_capacity(offer, job_id, stalled)
        return _Acceptance(reservation, self._registry, verdict.answer, offer.source)


def _shown(offer: Offer) -> bytes | None:
    """Return the metadata that people know the job by, as JSON."""
    return payload.as_json(offer.metadata) if offer.shown is None else offer.shown


_DETAILS = {
    "full": "the worker has as many jobs as max_jobs allows",
    "warming": "no process is idle",
    "draining": "the worker takes no more jobs",
    "breaker_open": "processes do not become warm",
}


def not_ready(closed: Closed | None, stats: PoolStats) -> tuple[RejectionReason, str] | None:
    """Return why no job could start now, as a reason code and as a text; ``None`` if a job could start."""
    if closed is not None:
        return closed.reason, closed.message
    reason = stats.not_ready_reason
    # With idle_target 0 every job starts cold. So "no process is idle" does not mean "not ready".
    if reason is None or (reason == "warming" and stats.idle_target == 0):
        return None
    detail = _DETAILS.get(reason, reason)
    return reason, f"{detail}: {stats.breaker_cause}" if stats.breaker_cause else detail
