"""Operations for the pool: show, resize, reload, drain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from ....errors import AppLoadError, OptionError, PrewarmError
from ....pool import ProcessPool
from ..operations import Operation
from ..requests import json_response, read_body
from ..schema import ApiError, Drain, DrainStarted, Nothing, PoolView, Reloaded, Resize, Resized, pool_view

__all__ = ["PoolApi", "Reloads"]


class Reloads(Protocol):
    async def reload(self, cause: str) -> int:
        """Reload, and return the new generation. Raises :class:`AppLoadError` or :class:`PrewarmError`."""


class PoolApi:
    """Handlers for the pool. ``stop`` begins the end of the worker, and returns the seconds that jobs have to end."""

    def __init__(self, pool: ProcessPool, reloads: Reloads, stop: Callable[[float | None], float]) -> None:
        self._pool = pool
        self._reloads = reloads
        self._stop = stop

    def operations(self) -> list[Operation]:
        tags = ("pool",)
        reloaded = {200: Reloaded}
        return [
            Operation("GET", "/v1/pool", self.show_pool, "Show the pool", {200: PoolView}, errors=(503,), tags=tags),
            Operation(
                "POST",
                "/v1/pool/resize",
                self.resize,
                "Hold more or fewer idle processes",
                {200: Resized},
                body=Resize,
                errors=(409, 415, 503),
                tags=tags,
            ),
            Operation(
                "POST",
                "/v1/pool/reload",
                self.reload,
                "Serve from newly loaded code",
                reloaded,
                body=Nothing,
                errors=(409, 415, 503),
                tags=tags,
            ),
            Operation(
                "POST",
                "/v1/pool/drain",
                self.drain,
                "Take no more sessions, and end after the last one",
                {202: DrainStarted},
                body=Drain,
                errors=(415, 503),
                tags=tags,
            ),
        ]

    async def show_pool(self, request: web.Request) -> web.Response:
        """Return the figures and the processes of the pool."""
        return json_response(pool_view(self._pool))

    async def resize(self, request: web.Request) -> web.Response:
        """Change the number of idle processes until the worker ends. After a restart, the settings hold again."""
        body = await read_body(request, Resize)
        try:
            most = None if body.max_idle_processes is None else int(body.max_idle_processes)
            self._pool.resize(int(body.num_idle_processes), max_idle_processes=most)
        except OptionError as error:
            raise ApiError(409, "wrong_size", str(error)) from error
        options = self._pool.options
        return json_response(Resized(options.num_idle_processes, options.idle_ceiling))

    async def reload(self, request: web.Request) -> web.Response:
        """Load the code again, and answer when it serves. If that fails: 409, and the old code goes on serving."""
        await read_body(request, Nothing)
        try:
            generation = await self._reloads.reload("requested by HTTP")
        except (AppLoadError, PrewarmError) as error:
            raise ApiError(
                409, "reload_failed", f"the reload failed, and the old code goes on serving: {error}"
            ) from error
        return json_response(Reloaded(generation))

    async def drain(self, request: web.Request) -> web.Response:
        """Start a drain, as SIGTERM does. The worker ends after the last job, or when the time is up."""
        body = await read_body(request, Drain)
        jobs = self._pool.stats().jobs
        return json_response(DrainStarted(jobs, self._stop(body.timeout)), status=202)
