"""The HTTP server: a socket, and the routes."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from ...settings import ServerOptions
from . import openapi
from .errors import answer_errors
from .guard import Guard
from .operations import Operation, routes_of
from .protocol import Connection
from .schema import encode
from .token import Token

__all__ = ["HttpServer", "listen"]

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

    def __init__(
        self, operations: Iterable[Operation], sock: socket.socket, options: ServerOptions, token: Token
    ) -> None:
        self._sock = sock
        self._token = token
        operations = list(operations)
        self._document = encode(openapi.document(operations))
        open_paths = frozenset(op.path for op in operations if op.is_open)
        host = str(sock.getsockname()[0])
        guard = Guard(host=host, token=token, open_paths=open_paths, rate_limit=options.rate_limit)
        app = web.Application(middlewares=[answer_errors, guard.check], client_max_size=options.max_request_bytes)
        app.add_routes([*routes_of(operations), web.get("/openapi.json", self._show_document)])
        logging.getLogger("aiohttp.server").addFilter(_is_ours)
        # A handler is cancelled when its client goes: a job that nobody would learn of must not start.
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            shutdown_timeout=LAST_ANSWERS,
        )
        self._listener: asyncio.Server | None = None

    async def _show_document(self, request: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    @property
    def url(self) -> URL:
        host, port = self._sock.getsockname()[:2]
        return URL.build(scheme="http", host=host, port=port)

    async def start(self) -> None:
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None  # it is set up
        loop = asyncio.get_running_loop()

        def connection() -> Connection:
            # None switches it off, whatever its type says.
            quiet: Any = None
            return Connection(manager, loop=loop, access_log=quiet, keepalive_timeout=IDLE_CONNECTION)

        # What aiohttp calls a site does the same with a protocol of its own.
        self._token.start()
        self._listener = await loop.create_server(connection, sock=self._sock, backlog=BACKLOG)

    async def close(self) -> None:
        """Finish the answers that are under way, and stop."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()
        self._token.close()
        self._sock.close()


def _is_ours(record: logging.LogRecord) -> bool:
    """What is not HTTP is answered, and a client that has gone is gone: nothing to fill a log with tracebacks with."""
    return not (record.exc_info and isinstance(record.exc_info[1], _CLIENTS_FAULTS))
