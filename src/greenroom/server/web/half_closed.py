"""Clients that have closed their sending side. Some of them wait for the answer, and others are gone.

Both kinds send the same FIN. Only data shows the difference, because the kernel of a client that is gone answers data
with RST. So the first bytes of the answer are sent ahead, one at a time. These bytes are the same for every answer.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable, Iterable
from typing import Any, cast

from aiohttp import StreamReader, web

__all__ = ["HalfClosable", "HalfClosed", "delivered"]

_BEGINNING = b"HTTP/1."
_FIRST_PROBE = 0.25
"""Seconds until the first byte is sent ahead; most answers take less. The wait doubles for each further byte."""
_KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
"""Keepalive options: two times in seconds, and a number of probes. Keepalive finds a client that goes after the first
bytes of the answer. The kernel of such a client forgets the connection after 60 s."""
_DELIVERY = 10.0
"""Seconds that a client's machine may take to acknowledge an answer."""
MOST = 64
"""Most half-closed clients at a time. Each takes a second file descriptor, and file descriptors are kept free for
jobs."""
_CLOSE_WAIT = 8
"""State of a socket if only the peer has closed its side: ``TCP_CLOSE_WAIT`` of ``tcp_states.h``."""


class HalfClosed:
    """Transport of a connection whose client has closed its sending side.

    The transport is aborted when the client is gone. ``may_probe`` returns true while an answer is due of which no byte
    has been sent.
    """

    def __init__(self, transport: asyncio.Transport, may_probe: Callable[[], bool]) -> None:
        self._transport = transport
        self._may_probe = may_probe
        self._sock = transport.get_extra_info("socket")
        self._ahead = 0
        self._delay = _FIRST_PROBE
        self._loop = asyncio.get_running_loop()
        # asyncio no longer watches a socket after the end of its data. An epoll that asks for no event still reports
        # the hang-up of both sides (EPOLLHUP). asyncio can watch the epoll itself.
        self._hang_up = select.epoll()
        self._hang_up.register(self._sock.fileno(), 0)
        self._loop.add_reader(self._hang_up.fileno(), self._abort)
        for option, value in _KEEPALIVE.items():
            self._sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self._timer = self._loop.call_later(self._delay, self._probe)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send the data without the bytes that were sent ahead."""
        ahead, self._ahead = self._ahead, 0
        self._transport.write(memoryview(data)[ahead:] if ahead else data)

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(parts)) if self._ahead else self._transport.writelines(parts)

    def release(self) -> None:
        """Stop watching a lost connection, and drop ``may_probe``, which refers to the connection."""
        self._timer.cancel()
        self._may_probe = bool  # bool() is false
        if not self._hang_up.closed:
            self._loop.remove_reader(self._hang_up.fileno())
            self._hang_up.close()

    async def delivered(self) -> None:
        """Wait until the client's kernel has acknowledged all bytes.

        Raises ``ConnectionResetError`` if the client is gone, or does not acknowledge in time.
        """
        give_up, pause = self._loop.time() + _DELIVERY, 0.001
        while self._transport.get_write_buffer_size() or self._unacknowledged():
            if self._loop.time() > give_up or self._transport.is_closing():
                raise ConnectionResetError(errno.ECONNRESET, "the client did not take its answer")
            await asyncio.sleep(pause)  # no event reports an acknowledgement
            pause = min(2 * pause, 0.05)

    def _unacknowledged(self) -> int:
        if self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _CLOSE_WAIT:
            raise ConnectionResetError(errno.ECONNRESET, "the client has gone")
        count: int = struct.unpack("i", fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return count

    def _probe(self) -> None:
        if self._may_probe() and self._ahead < len(_BEGINNING):
            self._transport.write(_BEGINNING[self._ahead : self._ahead + 1])
            self._ahead += 1
        self._delay *= 2
        self._timer = self._loop.call_later(self._delay, self._probe)

    def _abort(self) -> None:
        self.release()
        self._transport.abort()


class HalfClosable(web.RequestHandler):
    """Connection that still answers a client that has closed its sending side after its request."""

    __slots__ = ("_all_half_closed", "_half_closed", "_last_body")

    def __init__(self, manager: web.Server, *, half_closed: set[HalfClosed], **options: Any) -> None:
        super().__init__(manager, **options)
        self._all_half_closed = half_closed
        """Half-closed transports of all connections, at most :data:`MOST`."""
        self._half_closed: HalfClosed | None = None
        self._last_body: StreamReader | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._last_body = self._messages[-1][1]

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio keeps the connection open if this returns true
        if self._half_closed is not None:
            return True
        if not self._owes_an_answer() or self.transport is None or len(self._all_half_closed) >= MOST:
            return False
        if not self.transport.can_write_eof():  # TLS: the end of one side is that of both
            return False
        try:
            self._half_closed = HalfClosed(self.transport, self._is_answer_awaited)
        except OSError:  # no free fd: then nothing could show if the client is still there
            return False
        self._all_half_closed.add(self._half_closed)
        self.transport = cast(asyncio.Transport, self._half_closed)
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._half_closed is not None:
            self._all_half_closed.discard(self._half_closed)
            self._half_closed.release()
        super().connection_lost(exc)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        finished = await super().finish_response(request, resp, start_time)
        if self._half_closed is not None and not self._messages:
            self.close()  # no further request can come
        return finished

    async def delivered(self) -> None:
        """Wait until a half-closed client has its answer, as :meth:`HalfClosed.delivered` does.

        Return at once for other clients.
        """
        if self._half_closed is not None:
            await self._half_closed.delivered()

    def _owes_an_answer(self) -> bool:
        """Return true if a whole request has come that is not answered.

        aiohttp's ``_waiter`` is set only while no request is there.
        """
        is_busy = bool(self._messages) or self._waiter is None
        is_whole = self._last_body is not None and (self._last_body.is_eof() or self._last_body.exception() is not None)
        return is_busy and is_whole

    def _is_answer_awaited(self) -> bool:
        request = self._current_request
        return request is not None and not request.writer.output_size


async def delivered(request: web.BaseRequest) -> None:
    """Wait until a half-closed client has its answer. Raises ``ConnectionResetError`` if the client is gone."""
    if isinstance(request.protocol, HalfClosable):
        await request.protocol.delivered()
