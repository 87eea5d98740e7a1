"""Relay of inference requests from the jobs to the inference process of LiveKit's worker, with both of its ends.

The socket has an abstract address, so no file is left over when the worker dies. It is made in the pool's outer domain,
since jobs behind walls reach no other abstract socket of the worker. Each request has a connection of its own, with one
frame in each direction.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from typing import Protocol

from ....errors import GreenroomError
from ....system import passed_fds
from ....system.peer import is_own_user
from ....wire.frames import Frame, FrameDecoder, FrameError, encode_frame

__all__ = ["InferenceRelay", "Inferrer", "infer"]

_logger = logging.getLogger("greenroom.livekit")

_REQUEST, _ANSWER, _NO_ANSWER, _FAILURE = range(1, 5)
"""Kinds of frames: a request, and its outcomes. The result ``None`` has a kind of its own."""
_CHUNK = 64 * 1024


class Inferrer(Protocol):
    """LiveKit's ``InferenceExecutor``."""

    async def do_inference(self, method: str, data: bytes) -> bytes | None: ...


async def infer(address: str, method: str, data: bytes) -> bytes | None:
    """Send a request to the worker, and return the result.

    Raises :class:`GreenroomError` if the inference failed, or the worker is gone.
    """
    try:
        reader, writer = await asyncio.open_unix_connection("\0" + address)
        try:
            writer.write(encode_frame(_REQUEST, method.encode(), data))
            answer = await _received(reader)
        finally:
            writer.close()
    except (OSError, EOFError, FrameError) as error:
        raise GreenroomError(f"the worker did not answer: {error!r}") from error
    if answer.kind == _FAILURE:
        raise GreenroomError(answer.body.decode("utf-8", "replace"))
    return None if answer.kind == _NO_ANSWER else answer.body


class InferenceRelay:
    """Worker's end of the relay. Serves processes of the same user alone."""

    def __init__(self, inferrer: Inferrer | None) -> None:
        self.address = f"greenroom-livekit-{secrets.token_hex(16)}"
        self._inferrer = inferrer
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, sock: socket.socket) -> None:
        """Listen with this unbound socket, and own it. Raises ``OSError``; then the socket is closed."""
        try:
            passed_fds.refuse(sock)
            sock.bind("\0" + self.address)
            self._server = await asyncio.start_unix_server(self._connected, sock=sock)
        except BaseException:
            sock.close()
            raise

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="greenroom-inference")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if is_own_user(writer.get_extra_info("socket")):
                writer.write(await self._answer(await _received(reader)))
                await writer.drain()
        except (OSError, EOFError, FrameError) as error:  # the job has ended meanwhile, or sent an invalid frame
            _logger.debug("an inference request was dropped: %r", error)
        finally:
            writer.close()

    async def _answer(self, request: Frame) -> bytes:
        if self._inferrer is None:
            return _failure("no inference executor")
        try:
            result = await self._inferrer.do_inference(request.header.decode("utf-8", "replace"), request.body)
        except Exception as error:  # the model may raise anything; the job gets the error
            return _failure(str(error) or type(error).__name__)
        return encode_frame(_NO_ANSWER, b"") if result is None else encode_frame(_ANSWER, b"", bytes(result))


def _failure(text: str) -> bytes:
    return encode_frame(_FAILURE, b"", text.encode("utf-8", "replace"))


async def _received(reader: asyncio.StreamReader) -> Frame:
    """Read the only frame that the peer sends. Raises ``EOFError`` if the peer closes the connection before."""
    decoder = FrameDecoder()
    while data := await reader.read(_CHUNK):
        for frame in decoder.feed(data):
            return frame
    raise EOFError("the connection was closed")
