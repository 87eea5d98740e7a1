"""Events of the pool as server-sent events, for the status page, ``top``, and other programs."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from contextlib import suppress
from typing import Any

from aiohttp import web
from msgspec import Raw, Struct

from ....errors import PoolClosed
from ....json_encoding import encode
from ....pool import ProcessPool
from ....pool.events import Event, JobEnded, ProcessEnded, TurnedDown
from ...admission import Admission, not_ready
from ...telemetry.overview import Overview
from ...telemetry.snapshot import Snapshot, incident_of, report_brief
from ..operations import Operation
from ..requests import json_response
from ..schema import ApiError

__all__ = ["About", "EventsApi"]

LONGEST_QUEUE = 5000
"""Most events that wait for one client. Further events are dropped, and the client gets their number and a new
``board``."""
MOST_CLIENTS = 64
SESSIONS_SHOWN = 400
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

    def __init__(
        self, pool: ProcessPool, snapshot: Snapshot, overview: Overview, admission: Admission, about: About
    ) -> None:
        self._pool = pool
        self._overview = overview
        self._snapshot = snapshot
        self._admission = admission
        self._about = about
        self._clients: set[_Client] = set()
        self._numbers = itertools.count(1)
        self._levels_at = float("-inf")
        self._levels_frame = b""
        self._levels_turn = asyncio.Lock()
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
        return json_response(await self._picture())

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
        await response.write(await self._board_for(client))
        loop = asyncio.get_running_loop()
        due = loop.time() + LEVELS_EVERY
        while not client.is_over:
            frames, lost = await client.next(due - loop.time())
            if lost:
                frames += [_frame("dropped", {"events": lost}), await self._board_for(client)]
            if loop.time() >= due:
                frames.append(await self._latest_levels())
                due = loop.time() + LEVELS_EVERY
            await response.write(b"".join(frames))
        await response.write_eof()

    async def _board_for(self, client: _Client) -> bytes:
        """Return the present state as a frame. The client's next events are those after it: no event is in both."""
        picture = await self._picture()
        client.forget()
        return _frame("board", picture)

    async def _latest_levels(self) -> bytes:
        """Return the levels as a frame. All clients of the same moment get the same."""
        async with self._levels_turn:
            now = time.monotonic()
            if now - self._levels_at > LEVELS_EVERY / 2:
                self._levels_frame, self._levels_at = _frame("Levels", await self._levels()), now
            return self._levels_frame

    async def _levels(self) -> dict[str, Any]:
        live = await self._overview.live_figures(_raw)
        try:
            stats = self._pool.stats()
            problem, room = not_ready(self._admission.problem(), stats), self._admission.room()
        except PoolClosed:  # before the start of the pool, and after its end
            closed = self._admission.closed
            problem_of_all = "draining" if closed is None else closed.reason
            return {"now": time.time(), "stats": None, "problem": problem_of_all, "room": None, "live": {}}
        shown: dict[str, Any] = {
            "stats": dataclasses.asdict(stats),
            "problem": None if problem is None else problem[0],
        }
        shown |= {"now": time.time(), "room": {"jobs": room.jobs, "limit": room.limit}}
        return shown | {"live": live}

    async def _picture(self) -> dict[str, Any]:
        snapshot = self._snapshot
        levels = await self._levels()
        sessions = await self._overview.latest(SESSIONS_SHOWN, _raw)
        # No await from here on: else an event could be in one part of the picture, and not in another.
        return {
            "app": self._about.app,
            "dev": self._about.is_dev,
            **levels,
            "options": dataclasses.asdict(self._pool.options),
            "processes": list(snapshot.processes.values()),
            "sessions": sessions,
            "turned_down": list(snapshot.turned_down),
            "turned_down_total": dict(snapshot.turned_down_total),
            "reports": snapshot.failures.reports(),
            "causes": snapshot.failures.causes(),
            "incidents": list(snapshot.incidents),
            "start_ms": list(snapshot.start_ms),
        }

    def _on_event(self, event: Event) -> None:
        if self._clients:
            shown = _plain(event)
            if isinstance(event, TurnedDown):
                shown["metadata"] = self._snapshot.metadata_of(event.job_id)
            frame = _frame(type(event).__name__, shown, next(self._numbers))
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

    def forget(self) -> None:
        """Drop the frames so far: what they tell is in the board that comes next."""
        self._frames, self._lost = [], 0

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
    plain = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    incident = incident_of(event)
    return plain if incident is None else plain | {"incident": incident}


def _raw(plain: dict[str, Any]) -> Raw:
    return Raw(encode(plain))


def _frame(name: str, data: Any, number: int | None = None) -> bytes:
    head = f"id: {number}\nevent: {name}" if number is not None else f"event: {name}"
    return b"%s\ndata: %s\n\n" % (head.encode(), encode(data))
