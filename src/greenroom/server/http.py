"""The HTTP server: a socket, the routes, and errors that every client can read."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from ..errors import PoolClosed
from .requests import json_response
from .schema import ApiError

__all__ = ["HttpServer", "listen"]

_logger = logging.getLogger("greenroom")

BACKLOG = 1024
LAST_ANSWERS = 2.0
"""Seconds that answers under way may take when everything else has ended."""
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``OSError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


class HttpServer:
    """Serves the API on a socket, until it is closed."""

    def __init__(self, routes: Iterable[web.RouteDef], sock: socket.socket, *, max_request_bytes: int) -> None:
        self._sock = sock
        self._host = str(sock.getsockname()[0])
        app = web.Application(middlewares=[answer_errors, self._only_local_names], client_max_size=max_request_bytes)
        app.add_routes(routes)
        # A handler is cancelled when its client goes: a job that nobody would learn of must not start.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=LAST_ANSWERS)

    @property
    def url(self) -> URL:
        host, port = self._sock.getsockname()[:2]
        return URL.build(scheme="http", host=host, port=port)

    async def start(self) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, self._sock, backlog=BACKLOG).start()

    async def close(self) -> None:
        """Finish the answers that are under way, and stop."""
        await self._runner.cleanup()
        self._sock.close()

    @web.middleware
    async def _only_local_names(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # A web page can have its own host name point to 127.0.0.1 (DNS rebinding), but it cannot change this header.
        try:
            name = URL(f"http://{request.host}").host
        except ValueError:
            name = None
        if name not in _LOCAL_NAMES and name != self._host:
            raise ApiError(403, "wrong_host", f"the Host header is {request.host!r}; use localhost or {self._host}")
        return await handler(request)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong is answered in the one form of the schema."""
    try:
        return await handler(request)
    except ApiError as error:
        return _answer(error)
    except PoolClosed as error:
        return _answer(ApiError(503, "no_capacity", str(error), reason="draining", retry_after=5.0))
    except web.HTTPRequestEntityTooLarge as error:
        return _answer(ApiError(413, "too_large", f"the body is too large: {error.text}"))
    except web.HTTPException as error:
        return _answer(_routing_error(request, error), allow=error.headers.get("Allow"))
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        _logger.exception("%s %s failed", request.method, request.path)
        return _answer(ApiError(500, "internal", "the worker failed at this request; its log has the cause"))


def _routing_error(request: web.Request, error: web.HTTPException) -> ApiError:
    if error.status == 404:
        return ApiError(404, "not_found", f"there is nothing at {request.path}")
    if error.status == 405:
        return ApiError(405, "method_not_allowed", f"{request.path} has no {request.method}")
    return ApiError(error.status, "bad_request", error.text or error.reason)


def _answer(error: ApiError, *, allow: str | None = None) -> web.Response:
    headers = {} if allow is None else {"Allow": allow}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return json_response(error.body, status=error.status, headers=headers)
