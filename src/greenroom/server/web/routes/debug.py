"""Operation for the flight recording."""

from __future__ import annotations

from aiohttp import web

from ....errors import GreenroomError
from ....pool import ProcessPool
from ..operations import Operation
from ..schema import ApiError

__all__ = ["DebugApi"]

MOST_READERS = 2
"""Most clients that get the recording at a time. For each client, the worker reads its whole recording."""
_KIND = "application/jsonl"


class DebugApi:
    """Handlers for the flight recording."""

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._readers = 0

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "GET",
                "/v1/debug/recording",
                self.send_recording,
                "The flight recording",
                {200: _KIND},
                errors=(404, 503),
                tags=("debug",),
                head=self.head_of_recording,
            )
        ]

    async def send_recording(self, request: web.Request) -> web.StreamResponse:
        """Return the latest events and decisions of the pool as rows. ``greenroom debug record`` prints the rows."""
        if self._readers >= MOST_READERS:
            text = f"{MOST_READERS} clients are reading the recording already"
            raise ApiError(503, "too_many_answers", text, retry_after=1.0)
        self._readers += 1
        try:
            return await self._send(request)
        finally:
            self._readers -= 1

    async def head_of_recording(self, request: web.Request) -> web.StreamResponse:
        """Return the headers alone."""
        return web.Response(content_type=_KIND)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        pieces = self._pool.recording()
        try:
            first = await anext(pieces)
        except GreenroomError as error:
            raise ApiError(404, "not_found", str(error)) from error
        except OSError as error:
            raise ApiError(503, "out_of_files", f"the recording cannot be read: {error}", retry_after=5.0) from error
        try:
            response = web.StreamResponse(headers={"Content-Type": _KIND})
            await response.prepare(request)
            await response.write(first)
            async for piece in pieces:
                await response.write(piece)
            await response.write_eof()
        finally:
            await pieces.aclose()
        return response
