"""Takes connections from a listening socket, as long as there is room for them."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import suppress

from ...pool.log_fields import log_fields
from .connections import Crowd, network_of
from .errors import error_response
from .protocol import Connection
from .schema import ApiError

__all__ = ["Listener"]

_logger = logging.getLogger("greenroom")

BATCH = 64
"""Connections that are taken in one turn of the event loop. asyncio's own server takes as many as the backlog holds,
each with a file descriptor, before the first of them is known."""
PAUSE = 0.1
"""Seconds without open files before the next try."""
EVICTED = 4
"""Idle connections that are closed before it."""
_TELL_EVERY = 60.0
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """From ``start`` to ``close``."""

    def __init__(self, sock: socket.socket, crowd: Crowd, connection: Callable[[str], Connection]) -> None:
        self._sock = sock
        self._crowd = crowd
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._refused = _Complaint(self._loop)
        self._failed = _Complaint(self._loop)

    def start(self) -> None:
        self._sock.setblocking(False)
        self._go_on()

    async def close(self) -> None:
        """Take no more connections. The socket stays open."""
        self._loop.remove_reader(self._sock)
        if self._pause is not None:
            self._pause.cancel()
        if self._opening:
            await asyncio.wait(self._opening)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(BATCH):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                self._wait_for_files(error)
                return
            self._take(sock, network_of(peer[0]))

    def _take(self, sock: socket.socket, network: str) -> None:
        sock.setblocking(False)
        if not self._crowd.make_room(network, self._loop.time()):
            self._refuse(sock, network)
            return
        connection = self._connection(network)
        self._crowd.add(connection)
        task = self._loop.create_task(self._open(sock, connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket, connection: Connection) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError:
            self._crowd.remove(connection)
            sock.close()

    def _refuse(self, sock: socket.socket, network: str) -> None:
        text = "refused a connection from %s: of %d (max_connections), none is idle"
        self._refused.tell(text, network, self._crowd.most, event="connection_refused", address=network)
        with sock, suppress(OSError):
            sock.send(_REFUSAL)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1 << 16)  # what is unread at the close resets the connection, and the answer is lost

    def _wait_for_files(self, error: OSError) -> None:
        # The connection stays in the backlog, and the socket readable: without a pause the loop would spin.
        evicted = self._crowd.make_idle_room(EVICTED)
        text = "cannot accept a connection: %s. Closed %d idle ones; raise the limit on open files (LimitNOFILE=)"
        self._failed.tell(text, error.strerror, evicted, event="accept_failed", cause=error.strerror)
        self._loop.remove_reader(self._sock)
        self._pause = self._loop.call_later(PAUSE, self._go_on)


class _Complaint:
    """A warning that is logged at most once a minute."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = loop.time()
        self._count = 0

    def tell(self, text: str, *values: object, event: str, **fields: object) -> None:
        self._count += 1
        if self._loop.time() >= self._due:
            extra = log_fields(event, count=self._count, **fields)
            text += " (%d times)"
            _logger.warning(text, *values, self._count, extra=extra)
            self._count, self._due = 0, self._loop.time() + _TELL_EVERY


def _refusal() -> bytes:
    message = "the worker has all the connections that it may have (max_connections), and none is idle"
    response = error_response(ApiError(503, "too_many_connections", message, retry_after=1.0))
    body = response.body
    assert isinstance(body, bytes)
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Retry-After: {response.headers['Retry-After']}",
        "Connection: close",
    )
    return "\r\n".join([*head, "", ""]).encode() + body


_REFUSAL = _refusal()
