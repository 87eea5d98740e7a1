"""One connection: aiohttp's protocol, with our form for the errors that it answers by itself."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

from aiohttp import StreamReader, web

from .errors import error_response, routing_error
from .half_closed import HalfClosed
from .schema import ApiError

__all__ = ["Connection"]


class Connection(web.RequestHandler):
    """What is not HTTP comes to no application, and what is expected in vain to no middleware.

    A client that closes its sending side after its request still gets its answer.
    """

    __slots__ = ("_half_closed", "_last_body")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._half_closed: HalfClosed | None = None
        self._last_body: StreamReader | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._last_body = self._messages[-1][1]

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio keeps the connection open if this is true
        if self._half_closed is not None:
            return True
        if not self._owes_an_answer() or self.transport is None:
            return False
        try:
            self._half_closed = HalfClosed(self.transport, self._is_answer_awaited)
        except OSError:  # no file descriptor is left: then nobody could tell whether the client is there
            return False
        self.transport = cast(asyncio.Transport, self._half_closed)
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._half_closed is not None:
            self._half_closed.release()
        super().connection_lost(exc)

    async def delivered(self) -> None:
        """Return at once, but for a client that may be gone: then raise ``ConnectionResetError`` if it is."""
        if self._half_closed is not None:
            await self._half_closed.delivered()

    def _owes_an_answer(self) -> bool:
        """Whether a whole request has come that is not answered. While this waits for the next one, none has."""
        is_busy = bool(self._messages) or self._waiter is None
        is_whole = self._last_body is not None and (self._last_body.is_eof() or self._last_body.exception() is not None)
        return is_busy and is_whole

    def _is_answer_awaited(self) -> bool:
        request = self._current_request
        return request is not None and not request.writer.output_size

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # which logs it, and raises if it is too late to answer
        kind = "bad_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal"
        # The message shows the client's bytes, over several lines, with a mark below the wrong one.
        text = " ".join((message or HTTPStatus(status).description or HTTPStatus(status).phrase).split())
        response = error_response(ApiError(status, kind, text.encode("ascii", "backslashreplace").decode()))
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):
            resp = error_response(routing_error(request, resp))
        finished = await super().finish_response(request, resp, start_time)
        if self._half_closed is not None and not self._messages:
            self.close()  # no further request can come
        return finished
