"""One call of a service on one connection: frames whose bodies are received in place."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Any, cast

from ..wire import plain_json
from ..wire.frames import PREFIX_SIZE, FrameError, Prefix, encode_prefix, parse_prefix

__all__ = ["ANSWER", "CALL", "LISTED", "NOT_LOADED", "RAISED", "TAKEN", "Line"]

CALL, LISTED, TAKEN, ANSWER, RAISED, NOT_LOADED = range(1, 7)
"""Kinds of frames: a call; and from the service, that it waits for its turn, that it begins now, what the function
returned, what it raised, and what the loading raised."""

_JOINED = 64 * 1024
"""Bytes up to which a frame is sent by one system call, at the price of a copy."""


class Line(asyncio.BufferedProtocol):
    """Takes the frames of a connection apart, and sends others."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._prefix: Prefix | None = None
        self._expect(PREFIX_SIZE)

    # --- for those who speak ---------------------------------------------------------------------

    def on_frame(self, kind: int, header: dict[str, Any], body: memoryview) -> None:
        """Act on a frame. Raises :class:`FrameError` for one that makes no sense: then the connection is dropped."""
        raise NotImplementedError

    def on_lost(self) -> None:
        """The connection is gone, for whatever reason."""
        raise NotImplementedError

    def send(self, kind: int, header: dict[str, Any] | None = None, parts: list[bytes] | None = None) -> None:
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
        """Close it when all is sent."""
        self._transport.close()

    def drop(self) -> None:
        """Close it now."""
        self._transport.abort()

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    @property
    def is_hung_up(self) -> bool:
        """Whether the peer has gone, also where the event loop has not come to know of it."""
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
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

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
