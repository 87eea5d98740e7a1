"""Listening socket, which accepts connections as long as there is room for them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress

from .connections import Crowd, network_of
from .errors import error_response
from .http_connection import Connection
from .schema import ApiError
from .throttled_warning import ThrottledWarning

__all__ = ["Listener"]

BATCH = 64
"""Connections that are accepted in one turn of the event loop. asyncio's own server accepts as many as the backlog
holds before the first one is known. Each of them takes a file descriptor."""
PAUSE = 0.1
"""Seconds until the next try, if no connection can be accepted."""
EVICTED = 4
"""Idle connections that are closed before the next try."""
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_LOST = {
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENONET,
    errno.ENOPROTOOPT,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EPROTO,
    errno.EPROTONOSUPPORT,
    errno.ESOCKTNOSUPPORT,
    errno.ETIMEDOUT,
}
"""Errors of the connection that was to be accepted. Linux passes them on: see accept(2). A firewall causes EPERM."""


class Listener:
    """Listener that accepts connections on a socket, from ``start`` to ``close``.

    Without room for a connection, the listener closes another one or refuses the new one.
    """

    def __init__(self, sock: socket.socket, crowd: Crowd, connection: Callable[[str], Connection]) -> None:
        self._sock = sock
        self._crowd = crowd
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._refused = ThrottledWarning(self._loop, "connection_refused")
        self._lost = ThrottledWarning(self._loop, "connection_lost")
        self._failed = ThrottledWarning(self._loop, "accept_failed")

    def start(self) -> None:
        self._sock.setblocking(False)
        self._go_on()

    async def close(self) -> None:
        """Accept no more connections. The socket stays open."""
        self._loop.remove_reader(self._sock)
        if self._pause is not None:
            self._pause.cancel()
        for warning in (self._refused, self._lost, self._failed):
            warning.close()
        if self._opening:
            await asyncio.wait(self._opening)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(BATCH):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _LOST:
                    self._pause_accepting(error)
                    return
                text = "a connection was lost before it was accepted: %s"
                self._lost.warn(text, error.strerror, cause=error.strerror)
            else:
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
        text = "refused a connection from %s: none of the %d connections (max_connections) is idle"
        self._refused.warn(text, network, self._crowd.most, address=network)
        with sock, suppress(OSError):
            sock.send(_REFUSAL)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1 << 16)  # unread bytes would reset the connection at the close, and the answer would be lost

    def _pause_accepting(self, error: OSError) -> None:
        # The connection stays in the backlog, and the socket stays readable. Without a pause, the loop would spin.
        text = "cannot accept a connection: %s"
        values: list[object] = [error.strerror]
        if error.errno in _NO_ROOM:
            text += ". Closed %d idle connections. Raise the limit on open files (LimitNOFILE=)"
            values.append(self._crowd.make_idle_room(EVICTED))
        self._failed.warn(text, *values, cause=error.strerror)
        self._loop.remove_reader(self._sock)
        self._pause = self._loop.call_later(PAUSE, self._go_on)


def _refusal() -> bytes:
    message = "the worker has as many connections as max_connections allows, and none is idle"
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
