"""Shapes that all parts of the API share: ids, errors, and who may call."""

from __future__ import annotations

import secrets
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

__all__ = ["BadRequest", "error_body", "name_answer", "new_id", "require_key"]


def new_id(kind: str) -> str:
    """An id as the API writes it: ``resp_4f0c...``."""
    return f"{kind}_{secrets.token_hex(12)}"


def error_body(message: str, kind: str = "invalid_request_error", **more: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, "param": None, "code": None, **more}


class BadRequest(web.HTTPBadRequest):
    def __init__(self, message: str) -> None:
        super().__init__(text=_as_text(error_body(message)), content_type="application/json")


def _as_text(error: dict[str, Any]) -> str:
    return web.json_response({"error": error}).text or ""


@web.middleware
async def require_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Any key will do, but none is refused, as the real API would."""
    if not request.headers.get("Authorization", "").startswith("Bearer "):
        error = error_body("You didn't provide an API key.", code="invalid_api_key")
        return web.json_response({"error": error}, status=401)
    return await handler(request)


async def name_answer(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer has an id, which clients log. A signal of the app's, since a streamed answer is sent in parts."""
    response.headers["x-request-id"] = new_id("req")
