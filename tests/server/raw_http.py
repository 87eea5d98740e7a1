"""HTTP as no client library sends it: half, too much, without end, or unread."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from support import DEADLINE

__all__ = ["Connection", "RawAnswer", "connect", "open_fds", "peak_mb", "post", "request", "resident_mb"]


class RawAnswer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


class Connection:
    """One TCP connection to a worker on loopback."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, deadline: float = DEADLINE) -> RawAnswer:
        """Read one answer that has a Content-Length."""
        async with asyncio.timeout(deadline):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, _, lines = head.decode().partition("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines.split("\r\n") if line)
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return RawAnswer(int(status.split()[1]), headers, body)

    async def is_cut(self, deadline: float = DEADLINE) -> bytes:
        """Wait until the worker closes the connection; returns all bytes that still came."""
        data = b""
        async with asyncio.timeout(deadline):
            with suppress(ConnectionError):
                while more := await self.reader.read(1 << 16):
                    data += more
        return data


async def connect(port: int, *, source: str | None = None, receive_buffer: int | None = None) -> Connection:
    sock = socket.socket()
    try:
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        # A small buffer of its own: a test that does not read must not have its memory filled instead.
        return Connection(*await asyncio.open_connection(sock=sock, limit=1 << 16))
    except BaseException:
        sock.close()
        raise


def request(method: str, path: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *headers, "", ""]).encode()


def post(length: int, *headers: str) -> bytes:
    """The head of a request that starts a session."""
    return request("POST", "/v1/jobs", "Content-Type: application/json", f"Content-Length: {length}", *headers)


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def peak_mb(pid: int) -> float:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def open_fds(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
