"""The HTTP API: each request to the job book or the pool, and each answer as the schema says."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from functools import partial
from typing import TypeVar

import msgspec
from aiohttp import web

from ..errors import LaunchError, NoCapacity, PayloadError, PoolClosed
from ..pool import JobHandle, ProcessPool
from ..wire import payload
from .jobs import DuplicateJob, EndedJob, JobBook
from .readiness import not_ready
from .schema import ApiError, JobBrief, JobStarted, JobView, StartJob, encode, pool_view, report_view

__all__ = ["Api"]

LONGEST_WAIT = 600.0
LARGE_RESULT = 256 * 1024

T = TypeVar("T")


class Api:
    """The handlers."""

    def __init__(self, pool: ProcessPool, book: JobBook) -> None:
        self._pool = pool
        self._book = book

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/jobs", self.start_job),
            web.get("/v1/jobs", self.list_jobs),
            web.get("/v1/jobs/{id}", self.show_job),
            web.delete("/v1/jobs/{id}", self.cancel_job),
            web.get("/v1/pool", self.show_pool),
            web.get("/livez", self.livez),
            web.get("/readyz", self.readyz),
        ]

    # --- jobs ------------------------------------------------------------------------------------

    async def start_job(self, request: web.Request) -> web.StreamResponse:
        """Start a job, and answer when its process has acknowledged it."""
        order = await _read(request, StartJob)
        handle = self._accept(order)
        try:
            await _started(handle)
            response = json_response(JobStarted.of(handle), status=201)
            # Sent here and not by the caller, so that a client that is gone by now is noticed.
            await response.prepare(request)
            await response.write_eof()
        except (asyncio.CancelledError, ConnectionError):
            handle.cancel("the client that asked for it had gone before it could be told the job's id")
            raise
        return response

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

    def _accept(self, order: StartJob) -> JobHandle:
        try:
            metadata = payload.from_json(bytes(order.metadata))
        except PayloadError as error:
            raise ApiError(413, "too_large", str(error)) from error
        try:
            return self._book.start(metadata, job_id=order.id, timeout=order.timeout)
        except DuplicateJob as error:
            raise ApiError(409, "duplicate_job", str(error)) from error
        except NoCapacity as error:
            raise _turned_down(error) from error

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
            problem = not_ready(self._book.closed, self._pool.stats())
        except PoolClosed as error:
            problem = ("draining", str(error))
        if problem is None:
            return json_response({"ready": True})
        reason, detail = problem
        return json_response({"ready": False, "reason": reason, "detail": detail}, status=503)


def json_response(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=encode(body), status=status, headers=headers, content_type="application/json")


async def _started(handle: JobHandle) -> None:
    try:
        await handle.started()
    except NoCapacity as error:
        raise _turned_down(error) from error
    except LaunchError as error:
        reason = handle.report.reason if handle.report else None
        raise ApiError(503, "launch_failed", str(error), reason=reason, retry_after=1.0) from error


def _turned_down(error: NoCapacity) -> ApiError:
    return ApiError(503, "no_capacity", str(error), reason=error.reason, retry_after=error.retry_after)


async def _read(request: web.Request, kind: type[T]) -> T:
    """The body, checked. The media type is checked, too: a web page of another site cannot send this one unasked."""
    if request.content_type != "application/json":
        message = f"the body is {request.content_type}; send JSON, with the header Content-Type: application/json"
        raise ApiError(415, "not_json", message)
    body = await request.read()
    try:
        body.decode()
        return msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError as error:
        raise ApiError(400, "bad_json", f"the body is not UTF-8: {error}") from error
    except msgspec.ValidationError as error:
        raise ApiError(400, "wrong_type", f"the body does not fit: {error}") from error
    except msgspec.DecodeError as error:
        hint = "" if body else "; it is empty, and the least that can be sent is {}"
        raise ApiError(400, "bad_json", f"the body is not valid JSON: {error}{hint}") from error
    except RecursionError as error:
        raise ApiError(400, "bad_json", "the body is nested too deeply") from error


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
