"""Bodies of requests, which are read within limits of size and time, and never decompressed.

A body that breaks a limit is rejected before it is read, if its headers show that.
"""

from __future__ import annotations

from aiohttp import HttpVersion11, web

from ...clean_text import ascii_only
from .schema import ApiError

__all__ = [
    "BODY_RATE",
    "BODY_SECONDS",
    "expect_later",
    "read_all",
    "refuse_expectation",
    "refuse_packed",
    "size_on_the_wire",
]

BODY_SECONDS = 10.0
"""Seconds that a body may take, counted from its headers."""
BODY_RATE = 64 * 1024
"""Bytes of a body that give it one more second."""


def refuse_packed(request: web.BaseRequest) -> None:
    """Raise :class:`ApiError` for a body with an encoding, because a megabyte could be a gigabyte of work.

    ``identity`` is no encoding. The only transfer coding that is decoded here is ``chunked``.
    """
    for header, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        if header in request.headers:
            _refuse_codings(header, request.headers.getall(header), plain)


def _refuse_codings(header: str, values: list[str], plain: str) -> None:
    codings = [coding.strip() for coding in ",".join(values).split(",")]
    packed = ", ".join(coding for coding in codings if coding.lower() not in ("", plain))
    if packed:
        message = (
            f"the body cannot be read: it is encoded ({header}: {ascii_only(packed)}). Send it without that encoding."
        )
        raise ApiError(415, "encoded_body", message)


def refuse_expectation(request: web.BaseRequest) -> None:
    """Raise :class:`ApiError` for an unknown ``Expect`` header, before aiohttp quotes the header in an error."""
    expected = request.headers.get("Expect")
    if expected and request.version == HttpVersion11 and not _waits(request):
        raise ApiError(417, "bad_request", f"Unknown Expect: {ascii_only(expected)}")


async def expect_later(request: web.Request) -> None:
    """Do nothing. aiohttp calls this for an ``Expect`` header, and :func:`read_all` later sends ``100 Continue``."""


async def read_all(request: web.Request) -> bytes:
    """Return a body. Raises :class:`ApiError` if the body is too large.

    If the ``Content-Length`` is too large, nothing is read.
    """
    most = request.client_max_size
    if (request.content_length or 0) > most:
        raise _too_large(most)
    if _waits(request) and not request.content.is_eof():
        await _send_continue(request)
    body = bytearray()
    while part := await request.content.readany():
        body += part
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def size_on_the_wire(request: web.BaseRequest) -> int:
    """Return about the number of bytes that the client has sent for a request so far."""
    headers = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
    return len(request.method) + len(request.raw_path) + 13 + headers + request.content.total_bytes


def _waits(request: web.BaseRequest) -> bool:
    return request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue"


async def _send_continue(request: web.Request) -> None:
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # aiohttp takes any other number for an answer that has begun


def _too_large(most: int) -> ApiError:
    return ApiError(413, "too_large", f"the body is too large: the limit is {most} bytes (max_request_bytes)")
