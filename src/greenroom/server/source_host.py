"""Host of one source: the worker, as the source sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ..errors import RejectionReason
from ..log_fields import log_fields
from ..options import PoolOptions
from ..pool import PoolStats, ProcessPool
from ..pool.events import (
    Event,
    JobEnded,
    OfferAnswered,
    Offered,
    ProcessWarmed,
    Reloaded,
    SourceChanged,
    TurnedDown,
    ZygoteStarted,
)
from ..sources import Acceptance, Closed, Listener, Offer
from .admission import Admission

__all__ = ["SourceHost"]

_logger = logging.getLogger("greenroom")


class SourceHost:
    """Implementation of :class:`greenroom.sources.Host` for one source."""

    def __init__(self, name: str, pool: ProcessPool, admission: Admission) -> None:
        self.resident = pool.resident
        self._name = name
        self._pool = pool
        self._admission = admission
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def options(self) -> PoolOptions:
        return self._pool.options

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self._pool.manifest if self._pool.is_open else {}

    async def offer(self, offer: Offer) -> Acceptance:
        return await self._admission.offer(offer)

    def problem(self) -> Closed | None:
        return self._admission.problem()

    def stalls_over(self) -> int:
        return self._admission.stalls.over

    def further_jobs(self) -> int:
        return self._admission.room().jobs

    def stats(self) -> PoolStats:
        return self._pool.stats()

    def listen(self, listener: Listener) -> Callable[[], None]:
        def pass_on(event: Event) -> None:
            listener.changed()
            if isinstance(event, JobEnded):
                listener.job_ended(event.report.job_id or "")
            elif isinstance(event, Reloaded):
                listener.reloaded()
            elif isinstance(event, (ZygoteStarted, ProcessWarmed)):  # a spawned process reports the app when it is warm
                listener.app_loaded()

        return self._pool.subscribe(pass_on)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._is_done)
        return task

    def _is_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            text = "task %s of source %s failed"
            extra = log_fields("source_task_failed", source=self._name)
            _logger.error(text, task.get_name(), self._name, exc_info=error, extra=extra)

    async def end_tasks(self) -> None:
        """Cancel the remaining tasks of the source, and wait for them."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def report_offer(self, job_id: str, labels: Mapping[str, str]) -> None:
        self._pool.publish(Offered(job_id, self._name, None, labels))

    def report_rejection(self, job_id: str, reason: RejectionReason, message: str, labels: Mapping[str, str]) -> None:
        self._pool.publish(TurnedDown(job_id, self._name, reason, message, labels))

    def report_answer(self, job_id: str, *, accepted: bool, seconds: float) -> None:
        self._pool.publish(OfferAnswered(job_id, self._name, accepted, seconds))

    def report_state(self, state: str, detail: str) -> None:
        self._pool.publish(SourceChanged(self._name, state, detail))
