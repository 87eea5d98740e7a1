"""Inference for the jobs, by the process that LiveKit's worker keeps for it: both ends of the way there.

The socket is an abstract one, so that nothing is left over in a file system however the worker ends.
Each request has a connection of its own: a line of JSON, and then bytes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import struct
from typing import Any, Protocol

from ....errors import GreenroomError
from ....wire import plain_json

__all__ = ["InferenceRelay", "Inferrer", "infer"]

_logger = logging.getLogger("greenroom.livekit")

_LARGEST = 64 * 1024 * 1024


class Inferrer(Protocol):
    """LiveKit's ``InferenceExecutor``."""

    async def do_inference(self, method: str, data: bytes) -> bytes | None: ...


async def infer(address: str, method: str, data: bytes) -> bytes | None:
    """Ask the worker. Raises :class:`GreenroomError` if the inference failed, or the worker is gone."""
    try:
        reader, writer = await asyncio.open_unix_connection("\0" + address)
        try:
            _write(writer, {"method": method}, data)
            header, answer = await _read(reader)
        finally:
            writer.close()
    except (OSError, EOFError, ValueError) as error:
        raise GreenroomError(f"the worker did not answer: {error!r}") from error
    if header["error"] is not None:
        raise GreenroomError(header["error"])
    return answer


class InferenceRelay:
    """The worker's end. Serves processes of the same user alone."""

    def __init__(self, inferrer: Inferrer | None) -> None:
        self.address = f"greenroom-livekit-{secrets.token_hex(16)}"
        self._inferrer = inferrer
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, "\0" + self.address)

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
            if _is_own(writer):
                header, data = await _read(reader)
                error, answer = await self._infer(str(header["method"]), data or b"")
                _write(writer, {"error": error}, answer)
                await writer.drain()
        except (OSError, EOFError, ValueError, KeyError) as error:  # the job has ended meanwhile; or nonsense
            _logger.debug("an inference request was dropped: %r", error)
        finally:
            writer.close()

    async def _infer(self, method: str, data: bytes) -> tuple[str | None, bytes | None]:
        if self._inferrer is None:
            return "no inference executor", None
        try:
            return None, await self._inferrer.do_inference(method, data)
        except Exception as error:  # the model's: it is told to the job that asked
            return str(error) or type(error).__name__, None


def _is_own(writer: asyncio.StreamWriter) -> bool:
    peer: socket.socket = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())


def _write(writer: asyncio.StreamWriter, header: dict[str, Any], data: bytes | None) -> None:
    size = None if data is None else len(data)
    writer.write(plain_json.encoded({**header, "size": size}).encode() + b"\n")
    writer.write(data or b"")


async def _read(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes | None]:
    header = plain_json.decoded(await reader.readuntil(b"\n"))
    size = header["size"]
    if size is None:
        return header, None
    if not 0 <= size <= _LARGEST:
        raise ValueError(f"{size} bytes of data; at most {_LARGEST} can be passed")
    return header, await reader.readexactly(size)
