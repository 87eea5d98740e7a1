"""List of jobs: those of the registry, with what the history knows of them, and older ones from the history on disk."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, TypeVar

from msgspec import Raw

from ....job_labels import label_text
from ....json_encoding import encode
from ....pool import JobHandle
from ...history.history import History
from ...history.search import Query, parse
from ...job_registry import EndedJob, JobRegistry
from ...slices import Slices
from ..schema import JobBrief, JobView, ListJobs

__all__ = ["JobLister", "fields_of_stored", "with_history"]

_View = TypeVar("_View", JobBrief, JobView)


class JobLister:
    """Lister of the jobs of this worker and, for a search, of workers before it. Jobs are made into JSON in slices."""

    def __init__(self, registry: JobRegistry, history: History, slices: Slices) -> None:
        self._registry = registry
        self._history = history
        self._slices = slices

    async def jobs(self, wanted: ListJobs) -> list[Raw]:
        """Return the latest jobs that are wanted, as JSON: ended ones, oldest first, and then live ones.

        Raises ``OptionError`` for a search that cannot be parsed.
        """
        query = parse(wanted.q, time.time(), 60 * wanted.utc_offset)
        chosen: list[JobHandle | EndedJob] = [*self._registry.ended(), *self._registry.live()]
        shown = partial(self._shown, query if wanted.q else None, wanted)
        jobs = (await self._slices.first(shown, reversed(chosen), wanted.limit))[::-1]
        if (wanted.q or wanted.older) and len(jobs) < wanted.limit:
            jobs = [*await self._older(query, wanted, wanted.limit - len(jobs)), *jobs]
        return jobs

    def _shown(self, query: Query | None, wanted: ListJobs, job: JobHandle | EndedJob) -> Raw | None:
        """Return a job as JSON; ``None`` if it does not match."""
        brief, record = _brief(job), self._history.find(_id_of(job))
        if not _matches(brief, wanted) or (query is not None and (record is None or not query.matches(record))):
            return None
        if isinstance(job, JobHandle):
            self._history.sampler.look_at(job)
        return Raw(encode(with_history(self._history, brief)))

    async def _older(self, query: Query, wanted: ListJobs, most: int) -> list[Raw]:
        """Return the latest jobs from the history on disk that this worker does not know any more."""
        store = self._history.store
        if store is None or wanted.state not in (None, "ended"):
            return []
        label, _, text = (wanted.label or "").partition("=")
        query = query.with_terms(
            ("state", "ended"), ("outcome", wanted.outcome), ("reason", wanted.reason), (label, text or None)
        )
        in_memory = len(self._registry.ended()) + len(self._registry.live())  # so many of the latest may be known here
        briefs = await store.search(query, most + in_memory)
        unknown = [brief for brief in briefs if self._registry.find(brief["id"]) is None]
        return await self._slices.map(lambda brief: Raw(encode(JobBrief(**fields_of_stored(brief)))), unknown[-most:])


def with_history(history: History, job: _View) -> _View:
    """Add what the history knows of a job, if it still knows the job."""
    record = history.find(job.id)
    if record is not None:
        job.add(record.brief(time.time()))
    return job


def fields_of_stored(brief: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a job from the history on disk."""
    return {name: brief[name] for name in JobBrief.__struct_fields__ if name in brief} | {"state": "ended"}


def _brief(job: JobHandle | EndedJob) -> JobBrief:
    if isinstance(job, JobHandle) and job.report is None:
        return JobBrief.of_live(job)
    assert job.report is not None  # also that of a job that has ended since the list of the live ones was taken
    return JobBrief.of_ended(job.report)


def _id_of(job: JobHandle | EndedJob) -> str:
    found = job.id if isinstance(job, JobHandle) else job.report.job_id
    assert found is not None
    return found


def _matches(job: JobBrief, wanted: ListJobs) -> bool:
    if wanted.state == "live" and job.state == "ended":
        return False
    if wanted.state not in (None, "live", job.state):
        return False
    if wanted.label is not None and not _has_label(job, wanted.label):
        return False
    return wanted.outcome in (None, job.outcome) and wanted.reason in (None, job.reason)


def _has_label(job: JobBrief, wanted: str) -> bool:
    name, _, text = wanted.partition("=")
    return job.labels.get(name) == label_text(text)
