"""Source of jobs that arrive by ``POST /v1/jobs``. Every worker has this source."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from ....errors import LaunchError, NoCapacity, PayloadError
from ....sources import Acceptance, DuplicateJob, Host, JobHandle, Offer, RejectedByApp
from ....wire import payload
from ...worker_identity import has_own_form
from ..arrivals import stalls_before
from ..guard import note_start, taken_from_sessions
from ..half_closed import delivered
from ..operations import Operation
from ..requests import json_response, read_body
from ..schema import ApiError, JobStarted, StartJob

__all__ = ["HttpSource"]


class HttpSource:
    """Implementation of :class:`greenroom.sources.Source`, with offer, acceptance and start in one request."""

    name = "http"

    def __init__(self) -> None:
        self._host: Host | None = None
        self._is_open = False

    def attach(self, host: Host) -> None:
        self._host = host

    async def open(self) -> None:
        self._is_open = True

    def status(self) -> dict[str, Any]:
        return {"state": "open" if self._is_open else "closed"}

    def pause(self) -> None:
        """Do nothing. Each later request is an offer, which is rejected with the reason."""

    async def close(self) -> None:
        self._is_open = False

    def operations(self) -> list[Operation]:
        started, errors = {201: JobStarted}, (403, 409, 415, 503)
        return [Operation("POST", "/v1/jobs", self.start_job, "Start a job", started, body=StartJob, errors=errors)]

    async def start_job(self, request: web.Request) -> web.StreamResponse:
        """Start a job. Answer when its process has acknowledged the job, or at once with the reason of a rejection."""
        body = await read_body(request, StartJob)
        with taken_from_sessions(request, body.id):
            acceptance = await self._offer(body, request.headers.get("traceparent"), stalls_before(request))
        handle = _start(acceptance)
        try:
            await _started(handle)
            note_start(request, handle.id)
            response = json_response(JobStarted.of(handle, acceptance.answer), status=201)
            response.headers["Location"] = f"/v1/jobs/{handle.id}"
            # The answer is sent here and not by aiohttp, so that this handler notices a client that is gone.
            await response.prepare(request)
            await response.write_eof()
            await delivered(request)
        except (asyncio.CancelledError, ConnectionError):
            handle.cancel("the client had disconnected before it got the job's id")
            raise
        return response

    async def _offer(self, body: StartJob, traceparent: str | None, stalls: int) -> Acceptance:
        try:
            metadata = payload.from_json(bytes(body.metadata))
        except PayloadError as error:
            raise ApiError(413, "too_large", str(error)) from error
        if body.id is not None and has_own_form(body.id):
            message = f"the id {body.id!r} has the form of ids that workers make (NAME.START.RANDOM). Use another form"
            raise ApiError(409, "reserved_id", message)
        if self._host is None:
            raise turned_down(NoCapacity("the app is still being loaded", reason="warming", retry_after=1.0))
        try:
            offer = Offer(self.name, metadata, body.id, body.timeout, traceparent, stalls_before=stalls)
            return await self._host.offer(offer)
        except DuplicateJob as error:
            raise ApiError(409, "duplicate_job", str(error)) from error
        except RejectedByApp as error:
            raise ApiError(403, "rejected", str(error), reason=error.reason) from error
        except NoCapacity as error:
            raise turned_down(error) from error


def turned_down(error: NoCapacity) -> ApiError:
    return ApiError(503, "no_capacity", str(error), reason=error.reason, retry_after=error.retry_after)


def _start(acceptance: Acceptance) -> JobHandle:
    try:
        return acceptance.start()
    except LaunchError as error:
        raise ApiError(503, "launch_failed", str(error), retry_after=1.0) from error


async def _started(handle: JobHandle) -> None:
    try:
        await handle.started()
    except NoCapacity as error:
        raise turned_down(error) from error
    except LaunchError as error:
        reason = handle.report.reason if handle.report else None
        raise ApiError(503, "launch_failed", str(error), reason=reason, retry_after=1.0) from error
