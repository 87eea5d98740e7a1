"""History of a worker's jobs in memory: live ones, and the latest that ended."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from ...pool import JobHandle, ProcessPool
from ...pool.events import (
    ClaimFailed,
    Event,
    JobAccepted,
    JobEnded,
    JobStarted,
    MemorySampled,
    Offered,
    Released,
    Stalled,
    TurnedDown,
)
from .failures import cause_of
from .job_traces import JobTraces
from .journal import Journal
from .offers import Offers
from .record import Record
from .sampler import Sampler
from .shown_metadata import ALL, fields_of
from .store import HistoryStore

__all__ = ["KEPT", "History"]

KEPT = 1000
"""Ended jobs that are kept."""
MOST_TEXT = 32 * 1024 * 1024
"""Characters of all kept records. Above this, the oldest records are dropped."""
EVERY = 2.0
"""Seconds between two samples of a job."""
FLUSH_EVERY = 0.5
"""Seconds between two batches for the disk. A worker that is killed loses what is younger."""


class _LineHandler(logging.Handler):
    """Log handler that passes on the log lines of jobs."""

    def __init__(self, add: Callable[[str, logging.LogRecord], object]) -> None:
        super().__init__()
        self._add = add

    def emit(self, record: logging.LogRecord) -> None:
        job_id = getattr(record, "job_id", None)
        if job_id is not None:
            with suppress(Exception):  # the text of an app that cannot be formatted
                self._add(job_id, record)


class History:
    """Records of jobs, which follow the pool's events and the log.

    ``wanted`` says which part of the metadata is kept: see :func:`.shown_metadata`. ``live`` returns the handles of
    the jobs that have not ended.
    """

    def __init__(
        self,
        pool: ProcessPool,
        live: Callable[[], Iterable[JobHandle]],
        wanted: tuple[str, ...] = ("all",),
        store: HistoryStore | None = None,
        traces: JobTraces | None = None,
    ) -> None:
        self._traces = traces or JobTraces()
        self.store = store
        """History on disk; ``None`` if there is none."""
        self._journal = Journal(store)
        self.sampler = Sampler(live, self.find, self._journal.note)
        """Figures of the running jobs."""
        self._wanted = wanted
        self._offers = offers = Offers(wanted)
        self._records: OrderedDict[str, Record] = OrderedDict()
        """Records by job id, oldest first."""
        self._sizes: OrderedDict[str, int] = OrderedDict()
        """Sizes of the records of ended jobs, in the order of their ends."""
        self._size = 0
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            Offered: lambda event: offers.note(event.job_id, event.at),
            TurnedDown: lambda event: offers.reject(event.job_id),
            Released: lambda event: offers.drop(event.job_id),
            JobAccepted: self._on_accepted,
            ClaimFailed: self._on_claim_failed,
            JobStarted: self._on_started,
            Stalled: self._on_stalled,
            MemorySampled: self.sampler.note_memory,
            JobEnded: self._on_end,
        }
        pool.subscribe(self._on_event)

    def offered(self, job_id: str, metadata: bytes | None) -> None:
        """Keep what operators may see of an offer's metadata (JSON) until its job is accepted."""
        self._offers.add(job_id, metadata)

    def find(self, job_id: str) -> Record | None:
        return self._records.get(job_id)

    def metadata_of(self, job_id: str) -> Any:
        """Return the shown metadata of a job, or of an offer that was rejected a short time ago."""
        record = self._records.get(job_id)
        return self._offers.rejected(job_id) if record is None else record.metadata

    def logged_metadata(self, job_id: str) -> Any:
        """Return the same, if the operator has chosen keys. Nobody has chosen that all metadata goes into the log."""
        return None if ALL in self._wanted else self.metadata_of(job_id)

    def latest(self, most: int) -> list[Record]:
        """Return all live jobs, and the latest that have ended, in all ``most`` if there are so many; oldest first."""
        surplus = max(len(self._records) - most, 0)
        left_out = set(itertools.islice(self._sizes, surplus))
        return [record for job_id, record in self._records.items() if job_id not in left_out]

    # --- log lines --------------------------------------------------------------------------------

    def _on_line(self, job_id: str, record: logging.LogRecord) -> None:
        job = self._records.get(job_id)
        if job is not None:
            origin = getattr(record, "app_logger", None) or getattr(record, "stream", None) or record.name
            job.lines.add(record.created, record.levelname.lower(), origin, record.getMessage())
            self._journal.note(job)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Keep the log lines of jobs, sample live jobs, and write all to disk, until the end of the block."""
        root, lines = logging.getLogger(), _LineHandler(self._on_line)
        root.addHandler(lines)
        if self.store is not None:
            self.store.start()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(work, name="greenroom-history") for work in (self._run(), self.sampler.measure_lag())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            root.removeHandler(lines)
            if self.store is not None:
                await self._journal.flush_all()
                await self.store.close()

    async def _run(self) -> None:
        for turn in itertools.count():
            await asyncio.sleep(FLUSH_EVERY)
            if turn % round(EVERY / FLUSH_EVERY) == 0:
                await self.sampler.sample_all()
            await self._journal.flush()

    # --- events -----------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _on_accepted(self, event: JobAccepted) -> None:
        at, metadata = self._offers.take(event.job_id, event.at)
        record = Record(event.job_id, event.source, dict(event.labels), at, event.at, metadata)
        record.launch_type, record.trace = event.launch_type, self._traces.find(event.job_id)
        record.set_fields({**fields_of(metadata), **event.labels})
        record.add_step(at, "offered")
        record.add_step(event.at, "accepted", f"{event.launch_type} start")
        self._forget(event.job_id)
        self._records[event.job_id] = record
        self._journal.note(record)

    def _on_claim_failed(self, event: ClaimFailed) -> None:
        self._step(event.job_id, event, "lost its process", event.cause)

    def _on_started(self, event: JobStarted) -> None:
        record = self._records.get(event.job_id)
        if record is None:
            return
        record.started, record.start_ms = event.at, round(event.start_seconds * 1000, 3)
        record.process_id, record.pid, record.generation = event.process_id, event.pid, event.generation
        record.launch_type, record.app_version = event.launch_type, event.app_version or None
        self._journal.note(record)
        record.add_step(event.at, "started", f"process {event.pid}, after {record.start_ms:.1f} ms")

    def _on_stalled(self, event: Stalled) -> None:
        if event.job_id is not None:
            self._step(event.job_id, event, "stalled", event.kind)

    def _on_end(self, event: JobEnded) -> None:
        report = event.report
        record = self._records.get(report.job_id or "")
        if record is None or report.job_id is None:
            return
        self.sampler.forget(record.process_id)
        record.ended = report.timings.ended or event.at
        record.report = replace(report, result_payload=None)
        record.cause = cause_of(report)
        record.add_step(record.ended, "ended", f"{report.outcome}, {report.reason}: {report.detail}")
        self._journal.note(record)
        self._sizes[record.id] = size = record.size()
        self._size += size
        while len(self._sizes) > KEPT or self._size > MOST_TEXT:
            self._forget(next(iter(self._sizes)))

    def _step(self, job_id: str, event: Event, what: str, detail: str) -> None:
        record = self._records.get(job_id)
        if record is not None:
            self._journal.note(record)
            record.add_step(event.at, what, detail)

    def _forget(self, job_id: str) -> None:
        self._records.pop(job_id, None)
        self._journal.forget(job_id)
        self._size -= self._sizes.pop(job_id, 0)
