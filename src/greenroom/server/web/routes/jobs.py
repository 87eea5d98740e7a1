"""Operations for jobs of all sources: list, show, wait, cancel."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import msgspec
from aiohttp import web

from ....job_labels import label_text
from ....pool import JobHandle
from ...job_registry import EndedJob, JobRegistry
from ..answers import LARGE_ANSWERS, LargeAnswers
from ..operations import Operation
from ..requests import json_response, read_query
from ..schema import ApiError, CancelJob, JobBrief, JobList, JobView, ListJobs, ReportView, ShowJob

__all__ = ["JobsApi"]

LARGE_RESULT = 256 * 1024


class JobsApi:
    """Handlers for jobs."""

    def __init__(self, registry: JobRegistry) -> None:
        self._registry = registry

    def operations(self) -> list[Operation]:
        path = "/v1/jobs/{id}"
        return [
            Operation("GET", "/v1/jobs", self.list_jobs, "List jobs", {200: JobList}, query=ListJobs),
            Operation(
                "GET",
                path,
                self.show_job,
                "Show or await a job",
                {200: JobView},
                query=ShowJob,
                errors=(404,),
                head=self.head_of_job,
            ),
            Operation(
                "DELETE",
                path,
                self.cancel_job,
                "Cancel a job",
                {200: JobBrief, 202: JobBrief},
                query=CancelJob,
                errors=(404,),
            ),
        ]

    async def list_jobs(self, request: web.Request) -> web.Response:
        """Return live jobs, and the latest 1,000 jobs that ended."""
        wanted = read_query(request, ListJobs)
        jobs = [JobBrief.of_ended(job.report) for job in self._registry.ended()]
        jobs += [JobBrief.of_live(handle) for handle in self._registry.live()]
        return json_response(JobList([job for job in jobs if _matches(job, wanted)][-wanted.limit :]))

    async def show_job(self, request: web.Request) -> web.Response:
        """Return the state of a job, and its report after its end. ``wait`` delays the answer until that end."""
        return await self._show(request, read_query(request, ShowJob).wait)

    async def head_of_job(self, request: web.Request) -> web.Response:
        """Return the headers for the present state of a job, without waiting."""
        read_query(request, ShowJob)
        return await self._show(request, 0.0)

    async def _show(self, request: web.Request, wait: float) -> web.Response:
        job = self._find(request)
        if isinstance(job, JobHandle):
            with suppress(TimeoutError):
                await asyncio.wait_for(job.wait(), wait)
            if job.report is None:
                return json_response(JobView(**msgspec.structs.asdict(JobBrief.of_live(job))))
            job = EndedJob(job.report)
        return json_response(await _view(job, request.app[LARGE_ANSWERS]))

    async def cancel_job(self, request: web.Request) -> web.Response:
        """Cancel a job. 202: the job is being cancelled. 200: the job had ended."""
        job, reason = self._find(request), read_query(request, CancelJob).reason
        if isinstance(job, EndedJob):
            return json_response(JobBrief.of_ended(job.report))
        job.cancel(reason or "a client cancelled the job")
        return json_response(JobBrief.of_live(job), status=202)

    def _find(self, request: web.Request) -> JobHandle | EndedJob:
        job_id = request.match_info["id"]
        job = self._registry.find(job_id)
        if job is None:
            message = f"there is no job {job_id!r}, or its report is no longer kept"
            raise ApiError(404, "unknown_job", message)
        return job


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


async def _view(job: EndedJob, answers: LargeAnswers) -> JobView:
    show = partial(ReportView.of, job.report, result_dropped=job.result_dropped)
    if job.result_bytes <= LARGE_RESULT:
        report = show()
    else:
        async with answers.making(job.result_bytes):
            # A large result that needs repair takes seconds. In a thread, it does not block the event loop.
            report = await asyncio.to_thread(show)
    return JobView(**msgspec.structs.asdict(JobBrief.of_ended(job.report)), report=report)
