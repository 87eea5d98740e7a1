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

from ...json_encoding import encode
from ...settings import ServerOptions
from ..stall_guard import StallGuard
from .answer_marks import AnswerMarks
from .answers import LARGE_ANSWERS, LargeAnswers
from .arrivals import Arrivals
from .bodies import expect_later
from .connections import Crowd, HeldBytes
from .errors import answer_errors
from .guard import Guard
from .half_closed import HalfClosed
from .http_connection import Connection
from .keys import Keys
from .listener import Listener
from .operations import Operation, document, routes_of
from .throttled_warning import ThrottledWarning
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
        keys: Keys | None,
        marks: AnswerMarks,
        stalls: StallGuard,
    ) -> None:
        """Prepare the server, within a running event loop.

        Without ``keys``, no request is checked, and there is no TLS. Use this only for operations that return nothing
        about jobs.
        """
        self._sock = sock
        self._keys = keys
        self._tls = None if keys is None else keys.tls
        self._marks = marks
        self._stalls = stalls
        self._malformed = ThrottledWarning(asyncio.get_running_loop(), "malformed_header")
        self._crowd = Crowd(most_connections)
        self._held = HeldBytes(max(MOST_HELD, 4 * options.max_request_bytes))
        self._answers = LargeAnswers()
        operations = list(operations)
        self._document = encode(document(operations))
        middlewares: list[Any] = []
        routes = routes_of(operations)
        if keys is not None:
            open_paths = frozenset(op.path for op in operations if op.is_open)
            host = str(sock.getsockname()[0])
            guard = Guard(host=host, keys=keys, open_paths=open_paths, options=options, malformed=self._malformed)
            middlewares.append(guard.check)
            routes.append(web.get("/openapi.json", self._show_document, expect_handler=expect_later))
        app = web.Application(middlewares=middlewares, client_max_size=options.max_request_bytes)
        app[LARGE_ANSWERS] = self._answers
        app.add_routes(routes)
        app.on_response_prepare.append(self._mark)  # streams send their headers before their handler returns
        logging.getLogger("aiohttp.server").addFilter(_is_no_clients_fault)
        # A handler is cancelled when its client goes. Else a job would start without a client that knows its id.
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            shutdown_timeout=LAST_ANSWERS,
        )
        self._listener: Listener | None = None

    async def _mark(self, request: web.Request, response: web.StreamResponse) -> None:
        self._marks.put(response)

    async def _show_document(self, request: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    @property
    def url(self) -> URL:
        host, port = self._sock.getsockname()[:2]
        return URL.build(scheme="http" if self._tls is None else "https", host=host, port=port)

    async def start(self) -> None:
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None  # setup() has made it
        _serve_by_connection(manager)
        loop = asyncio.get_running_loop()
        turns, half_closed = Turns(loop), set[HalfClosed]()

        def connection(network: str, sock: socket.socket, arrivals: Arrivals) -> Connection:
            return Connection(
                manager,
                network=network,
                sock=sock,
                arrivals=arrivals,
                crowd=self._crowd,
                held=self._held,
                answers=self._answers,
                turns=turns,
                half_closed=half_closed,
                marks=self._marks,
                loop=loop,
            )

        if self._keys is not None:
            self._keys.token.start()
        self._listener = Listener(self._sock, self._crowd, connection, self._stalls, self._tls)
        self._listener.start()

    async def close(self) -> None:
        """Finish the answers that are under way, and stop."""
        if self._listener is not None:
            await self._listener.close()
        await self._runner.cleanup()
        self._malformed.close()
        if self._keys is not None:
            self._keys.close()
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
