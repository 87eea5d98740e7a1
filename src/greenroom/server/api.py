"""The HTTP API: each request to the job book or the pool, and each answer as the schema says."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from functools import partial

import msgspec
from aiohttp import web

from ..errors import PoolClosed
from ..pool import JobHandle, ProcessPool
from .admission import Admission
from .jobs import EndedJob, JobBook
from .readiness import not_ready
from .requests import json_response
from .schema import ApiError, JobBrief, JobView, pool_view, report_view

__all__ = ["Api"]

LONGEST_WAIT = 600.0
LARGE_RESULT = 256 * 1024


class Api:
    """The handlers."""

    def __init__(self, pool: ProcessPool, book: JobBook, admission: Admission) -> None:
        self._pool = pool
        self._book = book
        self._admission = admission

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/jobs", self.list_jobs),
            web.get("/v1/jobs/{id}", self.show_job),
            web.delete("/v1/jobs/{id}", self.cancel_job),
            web.get("/v1/pool", self.show_pool),
            web.get("/livez", self.livez),
            web.get("/readyz", self.readyz),
        ]

    # --- jobs ------------------------------------------------------------------------------------

    async def list_jobs(self, request: web.Request) -> web.Response:
        live = [JobBrief.of_live(handle) for handle in self._book.live()]
        ended = [JobBrief.of_ended(job.report) for job in self._book.ended()]
        return json_response({"jobs": ended + live})

    async def show_job(self, request: web.Request) -> web.Response:
        """A job's state or report; with ``?wait=``, after its end or so many seconds."""
        job, wait = self._find(request), _wait(request)
        if isinstance(job, JobHandle):
            with suppress(TimeoutError):
                await asyncio.wait_for(job.wait(), wait)
            if job.report is None:
                return json_response(JobView(**msgspec.structs.asdict(JobBrief.of_live(job))))
            job = EndedJob(job.report)
        return json_response(await _view(job))

    async def cancel_job(self, request: web.Request) -> web.Response:
        job = self._find(request)
        if isinstance(job, EndedJob):
            return json_response(JobBrief.of_ended(job.report))
        job.cancel(request.query.get("reason") or "a client cancelled it")
        return json_response(JobBrief.of_live(job), status=202)

    def _find(self, request: web.Request) -> JobHandle | EndedJob:
        job_id = request.match_info["id"]
        job = self._book.find(job_id)
        if job is None:
            message = f"there is no job {job_id!r}; or it ended so long ago that its report is not kept any more"
            raise ApiError(404, "unknown_job", message)
        return job

    # --- the pool --------------------------------------------------------------------------------

    async def show_pool(self, request: web.Request) -> web.Response:
        return json_response(pool_view(self._pool))

    async def livez(self, request: web.Request) -> web.Response:
        """This process answers; whether it can take a session is another question."""
        return json_response({"alive": True})

    async def readyz(self, request: web.Request) -> web.Response:
        try:
            problem = not_ready(self._admission.problem(), self._pool.stats())
        except PoolClosed as error:
            problem = ("draining", str(error))
        if problem is None:
            return json_response({"ready": True})
        reason, detail = problem
        return json_response({"ready": False, "reason": reason, "detail": detail}, status=503)


def _wait(request: web.Request) -> float:
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_WAIT:
        message = f"wait is {text!r}; it must be a number of seconds between 0 and {LONGEST_WAIT:g}"
        raise ApiError(400, "wrong_type", message)
    return seconds


async def _view(job: EndedJob) -> JobView:
    show = partial(report_view, job.report, result_dropped=job.result_dropped)
    # A large result that needs repair takes seconds: in a thread, other sessions go on meanwhile.
    report = await asyncio.to_thread(show) if job.result_bytes > LARGE_RESULT else show()
    return JobView(**msgspec.structs.asdict(JobBrief.of_ended(job.report)), report=report)
