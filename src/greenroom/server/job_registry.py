"""Registry of a worker's jobs by id: live jobs, and the latest jobs that ended."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace

from ..errors import GreenroomError
from ..exit_report import ExitReport
from ..pool import JobHandle
from ..pool.recent_reports import MOST_TEXT, shortened, text_size

__all__ = ["EndedJob", "JobRegistry"]

KEPT_JOBS = 1000
KEPT_RESULT_BYTES = 128 * 1024 * 1024
"""Bytes of all kept results. Above this, the oldest results are dropped, and their reports stay. The largest possible
result always fits."""


@dataclass(frozen=True, slots=True)
class EndedJob:
    """Report of an ended job. ``result_dropped`` is true if the result was dropped to bound memory."""

    report: ExitReport
    result_dropped: bool = False

    @property
    def result_bytes(self) -> int:
        return len(self.report.result_payload or b"")

    @property
    def text_size(self) -> int:
        return text_size(self.report)


class JobRegistry:
    """Registry of the jobs of all sources."""

    def __init__(
        self, *, kept_jobs: int = KEPT_JOBS, kept_result_bytes: int = KEPT_RESULT_BYTES, kept_text: int = MOST_TEXT
    ) -> None:
        self._kept_jobs = kept_jobs
        self._kept_result_bytes = kept_result_bytes
        self._kept_text = kept_text
        self._live: dict[str, JobHandle] = {}
        self._ended: OrderedDict[str, EndedJob] = OrderedDict()
        self._result_bytes = self._text_size = 0
        self._followers: set[asyncio.Task[None]] = set()

    def add(self, handle: JobHandle) -> None:
        """Keep a job from its start on."""
        self._live[handle.id] = handle
        follower = asyncio.create_task(self._follow(handle), name=f"greenroom-follow-{handle.id}")
        self._followers.add(follower)
        follower.add_done_callback(self._followers.discard)

    def find(self, job_id: str) -> JobHandle | EndedJob | None:
        return self._live.get(job_id) or self._ended.get(job_id)

    def live(self) -> list[JobHandle]:
        return list(self._live.values())

    def ended(self) -> list[EndedJob]:
        """Return the ended jobs, oldest first."""
        return list(self._ended.values())

    async def settled(self) -> None:
        """Wait until no job is live."""
        if self._followers:
            await asyncio.wait(self._followers)

    def whereabouts(self, job_id: str) -> str | None:
        """Return in words if the job with this id is live or has ended; ``None`` if the id is free."""
        if job_id in self._live:
            return "has not ended"
        # The id of a job that never started is free: Retry-After invites the client to send the job again.
        ended = self._ended.get(job_id)
        return "has ended" if ended is not None and ended.report.timings.started is not None else None

    async def _follow(self, handle: JobHandle) -> None:
        with suppress(GreenroomError):  # the report has the cause, too
            await handle.started()
        report = await handle.wait()
        del self._live[handle.id]
        self._keep(handle.id, EndedJob(report))

    def _keep(self, job_id: str, ended: EndedJob) -> None:
        self._forget(job_id)
        self._ended[job_id] = ended
        self._result_bytes += ended.result_bytes
        self._text_size += ended.text_size
        while len(self._ended) > self._kept_jobs:
            self._forget(next(iter(self._ended)))
        for other in list(self._ended):
            if self._result_bytes <= self._kept_result_bytes:
                break
            self._drop_result(other)
        for other in list(self._ended):
            if self._text_size <= self._kept_text:
                break
            self._shorten(other)

    def _forget(self, job_id: str) -> None:
        ended = self._ended.pop(job_id, None)
        if ended is not None:
            self._result_bytes -= ended.result_bytes
            self._text_size -= ended.text_size

    def _shorten(self, job_id: str) -> None:
        ended = self._ended[job_id]
        short = self._ended[job_id] = replace(ended, report=shortened(ended.report))
        self._text_size += short.text_size - ended.text_size

    def _drop_result(self, job_id: str) -> None:
        ended = self._ended[job_id]
        if ended.result_bytes:
            self._result_bytes -= ended.result_bytes
            self._ended[job_id] = EndedJob(replace(ended.report, result_payload=None), result_dropped=True)
