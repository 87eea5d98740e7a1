"""One connection: aiohttp's protocol, with our form for the errors that it answers by itself."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from .errors import error_response, routing_error
from .schema import ApiError

__all__ = ["Connection"]


class Connection(web.RequestHandler):
    """What is not HTTP comes to no application, and what is expected in vain to no middleware."""

    __slots__ = ()

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
        return await super().finish_response(request, resp, start_time)
