"""HTTP server: a socket, and the routes."""

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
from .answers import LARGE_ANSWERS, LargeAnswers
from .bodies import expect_later
from .connections import Crowd, HeldBytes
from .errors import answer_errors
from .guard import Guard
from .half_closed import HalfClosed
from .http_connection import Connection
from .listener import Listener
from .operations import Operation, document, routes_of
from .schema import encode
from .token import Token
from .turns import Turns

__all__ = ["HttpServer", "listen"]

BACKLOG = 1024
LAST_ANSWERS = 2.0
"""Seconds that answers under way may take after everything else has ended."""
MOST_HELD = 32 * 1024 * 1024
"""Bytes of all requests that are not answered yet. Four bodies of the largest size always fit."""
SOCKET_BUFFERS = {socket.SO_RCVBUF: 64 * 1024, socket.SO_SNDBUF: 256 * 1024}
"""Bytes that the kernel may buffer for each connection. By default, the kernel's buffers grow to some megabytes."""
_CLIENTS_FAULTS = (HttpProcessingError, web.RequestPayloadError, ConnectionError)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, on all addresses if ``host`` is empty. Raises ``OSError`` if it cannot be opened."""
    is_dual = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual or ":" in host else socket.AF_INET
    sock = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    for buffer, size in SOCKET_BUFFERS.items():  # connections inherit the sizes
        sock.setsockopt(socket.SOL_SOCKET, buffer, size)
    return sock


class HttpServer:
    """HTTP server that serves operations on a socket until it is closed."""

    def __init__(
        self,
        operations: Iterable[Operation],
        sock: socket.socket,
        options: ServerOptions,
        most_connections: int,
        token: Token | None,
    ) -> None:
        """Prepare the server.

        Without a ``token`` object, no request is checked. Use this only for operations that return nothing about jobs.
        """
        self._sock = sock
        self._token = token
        self._crowd = Crowd(most_connections)
        self._held = HeldBytes(max(MOST_HELD, 4 * options.max_request_bytes))
        self._answers = LargeAnswers()
        operations = list(operations)
        self._document = encode(document(operations))
        middlewares: list[Any] = []
        routes = routes_of(operations)
        if token is not None:
            open_paths = frozenset(op.path for op in operations if op.is_open)
            host = str(sock.getsockname()[0])
            guard = Guard(host=host, token=token, open_paths=open_paths, rate_limit=options.rate_limit)
            middlewares.append(guard.check)
            routes.append(web.get("/openapi.json", self._show_document, expect_handler=expect_later))
        app = web.Application(middlewares=middlewares, client_max_size=options.max_request_bytes)
        app[LARGE_ANSWERS] = self._answers
        app.add_routes(routes)
        logging.getLogger("aiohttp.server").addFilter(_is_no_clients_fault)
        # A handler is cancelled when its client goes. Else a job would start without a client that knows its id.
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            shutdown_timeout=LAST_ANSWERS,
        )
        self._listener: Listener | None = None

    async def _show_document(self, request: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    @property
    def url(self) -> URL:
        host, port = self._sock.getsockname()[:2]
        return URL.build(scheme="http", host=host, port=port)

    async def start(self) -> None:
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None  # setup() has made it
        _serve_by_connection(manager)
        loop = asyncio.get_running_loop()
        turns, half_closed = Turns(loop), set[HalfClosed]()

        def connection(network: str) -> Connection:
            return Connection(
                manager,
                network=network,
                crowd=self._crowd,
                held=self._held,
                answers=self._answers,
                turns=turns,
                half_closed=half_closed,
                loop=loop,
            )

        if self._token is not None:
            self._token.start()
        self._listener = Listener(self._sock, self._crowd, connection)
        self._listener.start()

    async def close(self) -> None:
        """Finish the answers that are under way, and stop."""
        if self._listener is not None:
            await self._listener.close()
        await self._runner.cleanup()
        if self._token is not None:
            self._token.close()
        self._sock.close()


def _serve_by_connection(manager: web.Server) -> None:
    """Let each request pass its connection before it has a route. Errors of both are answered in the API's form."""
    answer: Any = manager.request_handler

    async def by_connection(request: Any) -> web.StreamResponse:
        connection: Any = request.protocol
        return await connection.serve(request, answer)  # type: ignore[no-any-return]

    async def handle(request: Any) -> web.StreamResponse:
        return await answer_errors(request, by_connection)

    manager.request_handler = handle


def _is_no_clients_fault(record: logging.LogRecord) -> bool:
    """Return false for a traceback of a client's fault, which is then not logged.

    Such a fault is data that is not HTTP, or a connection that the client has closed.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], _CLIENTS_FAULTS))
