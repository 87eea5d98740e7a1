"""The HTTP server: a socket, the routes, and errors that every client can read."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Iterable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from yarl import URL

from ...errors import PoolClosed
from ...settings import ServerOptions
from . import openapi
from .guard import Guard
from .operations import Operation, routes_of
from .requests import json_response
from .schema import ApiError, encode

__all__ = ["HttpServer", "listen"]

_logger = logging.getLogger("greenroom")

BACKLOG = 1024
IDLE_CONNECTION = 75.0
"""Seconds that a connection may take for its first request, headers and all, or be idle between two."""
LAST_ANSWERS = 2.0
"""Seconds that answers under way may take when everything else has ended."""
_CLIENTS_FAULTS = (HttpProcessingError, web.RequestPayloadError, ConnectionError)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``OSError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


class HttpServer:
    """Serves operations on a socket, until it is closed."""

    def __init__(self, operations: Iterable[Operation], sock: socket.socket, options: ServerOptions) -> None:
        self._sock = sock
        operations = list(operations)
        self._document = encode(openapi.document(operations))
        open_paths = frozenset(op.path for op in operations if op.is_open)
        host = str(sock.getsockname()[0])
        guard = Guard(host=host, token=options.token, open_paths=open_paths, rate_limit=options.rate_limit)
        app = web.Application(middlewares=[answer_errors, guard.check], client_max_size=options.max_request_bytes)
        app.add_routes([*routes_of(operations), web.get("/openapi.json", self._show_document)])
        logging.getLogger("aiohttp.server").addFilter(_is_ours)
        # A handler is cancelled when its client goes: a job that nobody would learn of must not start.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=IDLE_CONNECTION,
            shutdown_timeout=LAST_ANSWERS,
        )

    async def _show_document(self, request: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

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
    except web.RequestPayloadError as error:
        return _answer(ApiError(400, "bad_body", f"the body cannot be read: {error}"))
    except web.HTTPException as error:
        return _answer(_routing_error(request, error), allow=error.headers.get("Allow"))
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        _logger.exception("%s %s failed", request.method, request.path)
        return _answer(ApiError(500, "internal", "the worker failed at this request; its log has the cause"))


def _is_ours(record: logging.LogRecord) -> bool:
    """What is not HTTP is answered, and a client that has gone is gone: nothing to fill a log with tracebacks with."""
    return not (record.exc_info and isinstance(record.exc_info[1], _CLIENTS_FAULTS))


def _routing_error(request: web.Request, error: web.HTTPException) -> ApiError:
    if error.status == 404:
        return ApiError(404, "not_found", f"there is nothing at {request.path}")
    if error.status == 405:
        return ApiError(405, "method_not_allowed", f"{request.path} has no {request.method}")
    return ApiError(error.status, "bad_request", error.text or error.reason)


def _answer(error: ApiError, *, allow: str | None = None) -> web.Response:
    headers = {} if allow is None else {"Allow": allow}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="greenroom"'
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return json_response(error.body, status=error.status, headers=headers)
