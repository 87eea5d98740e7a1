"""Line: a connection for one call of a service. The bodies of its frames are received without a copy."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Any, cast

from ..wire import plain_json
from ..wire.frames import PREFIX_SIZE, FrameError, Prefix, encode_prefix, parse_prefix

__all__ = ["ANSWER", "CALL", "LISTED", "NOT_LOADED", "RAISED", "TAKEN", "Line"]

CALL, LISTED, TAKEN, ANSWER, RAISED, NOT_LOADED = range(1, 7)
"""Kinds of frames. A caller sends ``CALL``, and the service sends all others:

- ``LISTED``: the call waits for its turn.
- ``TAKEN``: the call begins now.
- ``ANSWER``: the result of the function.
- ``RAISED``: the error of the function.
- ``NOT_LOADED``: the error of the loading.
"""

_JOINED = 64 * 1024
"""Largest body, in bytes, that is sent in one system call with its header. The price is a copy."""


class Line(asyncio.BufferedProtocol):
    """Protocol that splits received data into frames, and sends frames."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._prefix: Prefix | None = None
        self._expect(PREFIX_SIZE)

    # --- for subclasses ---------------------------------------------------------------------------

    def on_frame(self, kind: int, header: dict[str, Any], body: memoryview) -> None:
        """Act on a frame. Raises :class:`FrameError` for an invalid frame; then the connection is dropped."""
        raise NotImplementedError

    def on_lost(self) -> None:
        """React to the end of the connection, whatever its cause."""
        raise NotImplementedError

    def send(self, kind: int, header: dict[str, Any] | None = None, parts: list[bytes] | None = None) -> None:
        """Send a frame. ``parts`` are the pieces of its body."""
        parts = parts or []
        size = sum(map(len, parts))
        if parts:
            header = {**(header or {}), "sizes": list(map(len, parts))}
        prefix = encode_prefix(kind, plain_json.encoded(header).encode() if header else b"", size)
        if size <= _JOINED:
            self._transport.write(b"".join([prefix, *parts]))
            return
        for part in (prefix, *parts):
            self._transport.write(part)

    def close(self) -> None:
        """Close the connection when all data is sent."""
        self._transport.close()

    def drop(self) -> None:
        """Close the connection now. Unsent data is lost."""
        self._transport.abort()

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    @property
    def is_hung_up(self) -> bool:
        """Return whether the peer has hung up, even if the event loop has not noticed that yet."""
        if self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    @property
    def _socket(self) -> socket.socket:
        found: socket.socket = self._transport.get_extra_info("socket")
        return found

    # --- for the event loop ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport has another base class

    def connection_lost(self, error: Exception | None) -> None:
        self.on_lost()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < len(self._room):
            return
        try:
            if self._prefix is None:
                self._prefix = parse_prefix(bytes(self._room))
                self._expect(self._prefix.frame_size - PREFIX_SIZE)
            if self._filled == len(self._room):
                self._deliver(self._prefix)
        except FrameError:
            self.drop()

    def _expect(self, size: int) -> None:
        self._room, self._filled = memoryview(bytearray(size)), 0

    def _deliver(self, prefix: Prefix) -> None:
        header, body = bytes(self._room[: prefix.header_size]), self._room[prefix.header_size :]
        self._prefix = None
        self._expect(PREFIX_SIZE)
        self.on_frame(prefix.kind, _fields(header), body)


def _fields(header: bytes) -> dict[str, Any]:
    try:
        found = plain_json.decoded(header) if header else {}
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a header is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise FrameError("a header is not an object")
    return found
