"""Events of the pool as server-sent events, for the status page, ``top``, and other programs."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from contextlib import suppress
from typing import Any

from aiohttp import web
from msgspec import Struct

from ....errors import PoolClosed
from ....pool import ProcessPool
from ....pool.events import Event, JobEnded, ProcessEnded
from ...admission import Admission, not_ready
from ...telemetry.snapshot import Snapshot, report_brief
from ..operations import Operation
from ..requests import json_response
from ..schema import ApiError, encode

__all__ = ["About", "EventsApi"]

LONGEST_QUEUE = 5000
"""Most events that wait for one client. Further events are dropped, and the client gets their number and a new
``board``."""
MOST_CLIENTS = 64
LEVELS_EVERY = 1.0
"""Seconds between two readings of the levels, which no event reports."""
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # else nginx would hold events back until it has some KiB
}


class About(Struct):
    """Facts about the worker, for the status page."""

    app: str
    is_dev: bool


class EventsApi:
    """Handlers that stream events to clients. A slow client loses events, and delays no other client."""

    def __init__(self, pool: ProcessPool, snapshot: Snapshot, admission: Admission, about: About) -> None:
        self._pool = pool
        self._snapshot = snapshot
        self._admission = admission
        self._about = about
        self._clients: set[_Client] = set()
        self._numbers = itertools.count(1)
        self._unsubscribe = pool.subscribe(self._on_event)

    def operations(self) -> list[Operation]:
        tags = ("events",)
        stream = {200: "text/event-stream"}
        snapshot = {200: dict[str, Any]}
        return [
            Operation(
                "GET",
                "/v1/events",
                self.stream_events,
                "Events as they happen",
                stream,
                errors=(503,),
                tags=tags,
                head=self.head_of_stream,
            ),
            Operation("GET", "/v1/board", self.show_board, "The present state", snapshot, errors=(503,), tags=tags),
        ]

    def close(self) -> None:
        """End all streams."""
        self._unsubscribe()
        for client in self._clients:
            client.end()

    async def show_board(self, request: web.Request) -> web.Response:
        """Return figures, processes, recent jobs, recent rejections, and reports of processes that failed."""
        return json_response(self._picture())

    async def stream_events(self, request: web.Request) -> web.StreamResponse:
        """Stream ``board`` (the present state), then each event under its name, and ``Levels`` every second. A slow
        reader gets ``dropped`` with the number of lost events, and then a new ``board``."""
        response = await self._begin(request)
        client = _Client()
        self._clients.add(client)
        try:
            await self._serve(client, response)  # the connection is closed if its client reads nothing
        finally:
            self._clients.discard(client)
        return response

    async def head_of_stream(self, request: web.Request) -> web.StreamResponse:
        """Return the headers of the stream. The client takes no place in the limit on streams."""
        return await self._begin(request)

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        if len(self._clients) >= MOST_CLIENTS:
            message = f"{MOST_CLIENTS} clients are reading events already"
            raise ApiError(503, "too_many_streams", message, retry_after=10.0)
        response = web.StreamResponse(headers=_HEADERS)
        await response.prepare(request)
        return response

    async def _serve(self, client: _Client, response: web.StreamResponse) -> None:
        # The client's first events are those after this snapshot, so that no event is in both.
        await response.write(_frame("board", self._picture()))
        loop = asyncio.get_running_loop()
        due = loop.time() + LEVELS_EVERY
        while not client.is_over:
            frames, lost = await client.next(due - loop.time())
            if lost:
                frames += [_frame("dropped", {"events": lost}), _frame("board", self._picture())]
            if loop.time() >= due:
                frames.append(_frame("Levels", self._levels()))
                due = loop.time() + LEVELS_EVERY
            await response.write(b"".join(frames))
        await response.write_eof()

    def _levels(self) -> dict[str, Any]:
        try:
            stats = self._pool.stats()
            problem = not_ready(self._admission.problem(), stats)
        except PoolClosed:  # before the start of the pool, and after its end
            closed = self._admission.closed
            return {"stats": None, "problem": "draining" if closed is None else closed.reason}
        return {"stats": dataclasses.asdict(stats), "problem": None if problem is None else problem[0]}

    def _picture(self) -> dict[str, Any]:
        snapshot = self._snapshot
        return {
            "app": self._about.app,
            "dev": self._about.is_dev,
            **self._levels(),
            "options": dataclasses.asdict(self._pool.options),
            "processes": list(snapshot.processes.values()),
            "sessions": list(snapshot.sessions.values()),
            "turned_down": list(snapshot.turned_down),
            "turned_down_total": dict(snapshot.turned_down_total),
            "reports": list(snapshot.reports),
            "start_ms": list(snapshot.start_ms),
        }

    def _on_event(self, event: Event) -> None:
        if self._clients:
            frame = _frame(type(event).__name__, _plain(event), next(self._numbers))
            for client in self._clients:
                client.put(frame)


class _Client:
    """Frames that one client has not read yet."""

    def __init__(self) -> None:
        self.is_over = False
        self._frames: list[bytes] = []
        self._lost = 0
        self._has_some = asyncio.Event()

    def put(self, frame: bytes) -> None:
        if len(self._frames) < LONGEST_QUEUE:
            self._frames.append(frame)
        else:
            self._lost += 1
        self._has_some.set()

    def end(self) -> None:
        self.is_over = True
        self._has_some.set()

    async def next(self, timeout: float) -> tuple[list[bytes], int]:
        """Wait for frames, for at most ``timeout`` seconds. Return them, and the number of events lost after them."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._has_some.wait(), max(timeout, 0.0))
        self._has_some.clear()
        frames, self._frames = self._frames, []
        lost, self._lost = self._lost, 0
        return frames, lost


def _plain(event: Event) -> dict[str, Any]:
    """Return an event as the API shows it. Reports have no result, because a result may be large."""
    if isinstance(event, (ProcessEnded, JobEnded)):
        shown: dict[str, Any] = {"at": event.at, "report": report_brief(event.report)}
        return shown | ({"source": event.source} if isinstance(event, JobEnded) else {})
    return {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}


def _frame(name: str, data: Any, number: int | None = None) -> bytes:
    head = f"id: {number}\nevent: {name}" if number is not None else f"event: {name}"
    return b"%s\ndata: %s\n\n" % (head.encode(), encode(data))
