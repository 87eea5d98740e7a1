"""Listening socket, which accepts connections as long as there is room for them."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..stall_guard import StallGuard
from .arrivals import Arrivals
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
HANDSHAKE_SECONDS = 10.0
"""Seconds that a client has for its TLS handshake."""
GOODBYE_SECONDS = 2.0
"""Seconds that a client has to answer the end of its TLS connection. Until then the connection takes a file."""
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

    def __init__(
        self,
        sock: socket.socket,
        crowd: Crowd,
        connection: Callable[[str, socket.socket, Arrivals], Connection],
        stalls: StallGuard,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._sock = sock
        self._crowd = crowd
        self._connection = connection
        self._stalls = stalls
        self._stalls_before = 0
        """Stalls that were over before any connection came that is not accepted yet."""
        self._is_empty = True
        """True if no connection waited at the last look."""
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls["ssl"] = tls
            self._tls["ssl_handshake_timeout"] = HANDSHAKE_SECONDS
            self._tls["ssl_shutdown_timeout"] = GOODBYE_SECONDS
        self._loop = asyncio.get_running_loop()
        self._opening: dict[asyncio.Task[None], Connection] = {}
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
        if self._tls:
            for connection in self._opening.values():
                connection.evict()
        if self._opening:
            await asyncio.wait(self._opening)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        if self._is_empty:
            self._stalls_before, self._is_empty = self._stalls.over, False
        for _ in range(BATCH):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                self._is_empty = True
                return
            except OSError as error:
                if error.errno not in _LOST:
                    self._pause_accepting(error)
                    return
                text = "a connection was lost before it was accepted: %s"
                self._lost.warn(text, error.strerror, cause=error.strerror)
            else:
                self._take(sock, network_of(peer[0]))
        self._is_empty = not _is_readable(self._sock)

    def _take(self, sock: socket.socket, network: str) -> None:
        sock.setblocking(False)
        if not self._crowd.make_room(network, self._loop.time()):
            self._refuse(sock, network)
            return
        may_have_waited = self._stalls_before < self._stalls.count
        arrivals = Arrivals(self._stalls, self._stalls_before if may_have_waited else None)
        connection = self._connection(network, sock, arrivals)
        self._crowd.add(connection)
        task = self._loop.create_task(self._open(sock, connection))
        self._opening[task] = connection
        task.add_done_callback(self._opening.pop)

    async def _open(self, sock: socket.socket, connection: Connection) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock, **self._tls)
        except OSError:  # also a TLS handshake that fails
            self._crowd.remove(connection)
            sock.close()
            return
        if connection.transport is None:
            # The connection was lost before its handshake was over. asyncio raises no error, nor calls the protocol.
            self._crowd.remove(connection)

    def _refuse(self, sock: socket.socket, network: str) -> None:
        text = "refused a connection from %s: none of the %d connections (max_connections) is idle"
        self._refused.warn(text, network, self._crowd.most, address=network)
        with sock, suppress(OSError):
            if self._tls:
                return  # an answer would need a handshake
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


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


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
