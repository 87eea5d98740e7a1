"""Large answers, which are sent in slices, and within a bound on their total size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from .errors import error_response
from .schema import ApiError

__all__ = ["LARGE_ANSWERS", "LargeAnswers"]

SLICE = 128 * 1024
"""Bytes that the transport gets at a time. The transport copies and keeps the bytes that it cannot send at once."""
MOST_BYTES = 256 * 1024 * 1024
"""Bytes of all large answers that are being sent. One answer is always sent, of any size."""


class LargeAnswers:
    """Large answers that are being sent."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._bytes = 0
        self._one_at_a_time = asyncio.Semaphore()

    @asynccontextmanager
    async def making(self, size: int) -> AsyncIterator[None]:
        """Hold the one place in which a large answer is made.

        Raises :class:`ApiError` if there is no room for an answer of this size. Send the answer in the same turn of the
        event loop. Then it is counted before the next one is made.
        """
        async with self._one_at_a_time:
            if not self._has_room(size):
                raise self._no_room()
            yield

    @contextmanager
    def sending(self, response: web.StreamResponse) -> Iterator[web.StreamResponse]:
        """Yield the response to send: the given one, or 503 if too many large answers are being sent."""
        body = response.body if isinstance(response, web.Response) and not response.prepared else None
        if not isinstance(response, web.Response) or not isinstance(body, bytes) or len(body) <= SLICE:
            yield response
        elif not self._has_room(len(body)):
            yield error_response(self._no_room())
        else:
            response.body = _Sliced(body, content_type=response.content_type)
            self._bytes += len(body)
            try:
                yield response
            finally:
                self._bytes -= len(body)

    def _has_room(self, size: int) -> bool:
        return not self._bytes or self._bytes + size <= self._most

    def _no_room(self) -> ApiError:
        message = f"the answer is large, and {self._bytes} bytes of other answers are being sent. Try again later."
        return ApiError(503, "too_many_answers", message, retry_after=5.0)


LARGE_ANSWERS = web.AppKey("large_answers", LargeAnswers)


class _Sliced(Payload):
    """Body that is sent as fast as the client reads it."""

    def __init__(self, value: bytes, *, content_type: str) -> None:
        super().__init__(value, content_type=content_type)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        data: bytes = self._value
        return data.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        whole = memoryview(self._value)
        for start in range(0, len(whole), SLICE):
            await writer.write(whole[start : start + SLICE])
            await asyncio.sleep(0)  # else a client that reads fast would block all others
