"""Operations for jobs of all sources: list, find, show, wait, cancel; their logs, figures and stacks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import msgspec
from aiohttp import web

from ....errors import GreenroomError, OptionError
from ....pool import JobHandle
from ...history.history import History
from ...history.store import Stored
from ...job_registry import EndedJob, JobRegistry
from ...slices import Slices
from ...worker_identity import WorkerIdentity, worker_of
from ..answers import LARGE_ANSWERS, LargeAnswers
from ..operations import Operation
from ..requests import json_response, read_body, read_query
from ..schema import (
    ApiError,
    CancelJob,
    JobBrief,
    JobLife,
    JobList,
    JobLog,
    JobView,
    LineView,
    ListJobs,
    Nothing,
    ReadLog,
    ReportView,
    SampleView,
    ShowJob,
    Stacks,
    StepView,
)
from .job_list import JobLister, fields_of_stored, with_history

__all__ = ["JobsApi"]

LARGE_RESULT = 256 * 1024
_LOST = (404, 410, 421)
"""Statuses for a job that this worker does not know: see :meth:`JobsApi._unknown`."""


class JobsApi:
    """Handlers for jobs."""

    def __init__(self, registry: JobRegistry, history: History, identity: WorkerIdentity, slices: Slices) -> None:
        self._registry = registry
        self._history = history
        self._identity = identity
        self._lister = JobLister(registry, history, slices)

    def operations(self) -> list[Operation]:
        path = "/v1/jobs/{id}"
        return [
            Operation("GET", "/v1/jobs", self.list_jobs, "List jobs, or find some", {200: JobList}, query=ListJobs),
            Operation(
                "GET",
                path,
                self.show_job,
                "Show or await a job",
                {200: JobView},
                query=ShowJob,
                errors=_LOST,
                head=self.head_of_job,
            ),
            Operation(
                "DELETE",
                path,
                self.cancel_job,
                "Cancel a job",
                {200: JobBrief, 202: JobBrief},
                query=CancelJob,
                errors=_LOST,
            ),
            Operation(
                "GET",
                f"{path}/log",
                self.show_log,
                "Show the log of a job",
                {200: JobLog},
                query=ReadLog,
                errors=_LOST,
            ),
            Operation("GET", f"{path}/life", self.show_life, "Show the life of a job", {200: JobLife}, errors=_LOST),
            Operation(
                "POST",
                f"{path}/stack",
                self.show_stack,
                "Show the stacks of a running job",
                {200: Stacks},
                body=Nothing,
                errors=(*_LOST, 409, 415),
            ),
        ]

    async def list_jobs(self, request: web.Request) -> web.Response:
        """Return live jobs, and the latest 1,000 jobs that ended."""
        try:
            jobs = await self._lister.jobs(read_query(request, ListJobs))
        except OptionError as error:
            raise ApiError(400, "bad_search", str(error)) from error
        return json_response({"jobs": jobs})

    async def show_job(self, request: web.Request) -> web.Response:
        """Return the state of a job, and its report after its end. ``wait`` delays the answer until that end."""
        return await self._show(request, read_query(request, ShowJob).wait)

    async def head_of_job(self, request: web.Request) -> web.Response:
        """Return the headers for the present state of a job, without waiting."""
        read_query(request, ShowJob)
        return await self._show(request, 0.0)

    async def _show(self, request: web.Request, wait: float) -> web.Response:
        job = self._registry.find(request.match_info["id"])
        if job is None:
            stored = await self._stored(request)
            report = None if stored.report is None else ReportView.of_stored(stored.report)
            return json_response(JobView(**fields_of_stored(stored.brief), report=report))
        if isinstance(job, JobHandle):
            with suppress(TimeoutError):
                await asyncio.wait_for(job.wait(), wait)
            if job.report is None:
                self._history.sampler.look_at(job)
                view = JobView(**msgspec.structs.asdict(JobBrief.of_live(job)))
                return json_response(with_history(self._history, view))
            job = EndedJob(job.report)
        return json_response(with_history(self._history, await _view(job, request.app[LARGE_ANSWERS])))

    async def cancel_job(self, request: web.Request) -> web.Response:
        """Cancel a job. 202: the job is being cancelled. 200: the job had ended."""
        job, reason = self._find(request), read_query(request, CancelJob).reason
        if isinstance(job, EndedJob):
            return json_response(JobBrief.of_ended(job.report))
        job.cancel(reason or "a client cancelled the job")
        return json_response(JobBrief.of_live(job), status=202)

    async def show_log(self, request: web.Request) -> web.Response:
        """Return the log lines of a job: the first 100 and the last 400. ``after`` is for following it."""
        after, job_id = read_query(request, ReadLog).after, request.match_info["id"]
        record = self._history.find(job_id)
        if record is not None:
            lines = [LineView(*line) for line in record.lines.after(after)]
            left_out, is_over = record.lines.left_out, record.ended is not None
            return json_response(JobLog(job_id, lines, record.lines.count, left_out, is_over))
        kept = (await self._stored(request)).lines
        count = kept[-1].number if kept else 0
        shown = [LineView(*line) for line in kept if line.number > after]
        return json_response(JobLog(job_id, shown, count, count - len(kept), is_over=True))

    async def show_life(self, request: web.Request) -> web.Response:
        """Return the steps in the life of a job with their times, and its memory, CPU time and loop lag over time."""
        job_id = request.match_info["id"]
        record = self._history.find(job_id)
        if record is None:
            life = (await self._stored(request)).life
            steps, samples = life["steps"], life["samples"]
        else:
            steps, samples = record.steps, record.figures.all()
        shown = [SampleView(*sample) for sample in samples]
        return json_response(JobLife(job_id, [StepView(*step) for step in steps], shown))

    async def show_stack(self, request: web.Request) -> web.Response:
        """Return the Python stacks of the job's process. The job goes on, also if its event loop is blocked."""
        await read_body(request, Nothing)
        job = self._find(request)
        if isinstance(job, EndedJob):
            raise ApiError(409, "job_ended", f"job {job.report.job_id} has ended, and has no stacks any more")
        try:
            return json_response(Stacks(job.id, job.pid, await job.stacks()))
        except GreenroomError as error:
            raise ApiError(409, "no_stacks", str(error)) from error

    async def _stored(self, request: web.Request) -> Stored:
        """Return a job from the history on disk."""
        job_id, store = request.match_info["id"], self._history.store
        stored = None if store is None else await store.find(job_id)
        if stored is None:
            raise self._unknown(job_id)
        return stored

    def _find(self, request: web.Request) -> JobHandle | EndedJob:
        job_id = request.match_info["id"]
        job = self._registry.find(job_id)
        if job is None:
            raise self._unknown(job_id)
        return job

    def _unknown(self, job_id: str) -> ApiError:
        """Return the error for a job that this worker does not know. Its id may tell where it is or was."""
        origin = self._identity.origin_of(job_id)
        if origin == "other":
            message = f"job {job_id!r} belongs to worker {worker_of(job_id)!r}; this one is {self._identity.name!r}"
            return ApiError(421, "other_worker", message)
        if origin == "earlier":
            message = f"job {job_id!r} belongs to an earlier start of this worker, which is over, as is the job"
            return ApiError(410, "worker_lost", message)
        return ApiError(404, "unknown_job", f"there is no job {job_id!r}, or its report is no longer kept")


async def _view(job: EndedJob, answers: LargeAnswers) -> JobView:
    show = partial(ReportView.of, job.report, result_dropped=job.result_dropped)
    if job.result_bytes <= LARGE_RESULT:
        report = show()
    else:
        async with answers.making(job.result_bytes):
            # A large result that needs repair takes seconds. In a thread, it does not block the event loop.
            report = await asyncio.to_thread(show)
    return JobView(**msgspec.structs.asdict(JobBrief.of_ended(job.report)), report=report)
