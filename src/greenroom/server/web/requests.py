"""Helpers for all handlers: bodies and queries of requests, and JSON answers."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from ...json_encoding import encode
from .bodies import read_all
from .schema import ApiError

__all__ = ["json_response", "read_body", "read_query"]

T = TypeVar("T")


def json_response(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=encode(body), status=status, headers=headers, content_type="application/json")


async def read_body(request: web.Request, kind: type[T]) -> T:
    """Return the body of a request as a ``kind``. Raises :class:`ApiError` if the body does not fit.

    The media type must be JSON. For a page of another site, the browser then asks the worker first (CORS).
    """
    if request.content_type != "application/json":
        message = f"the body is {request.content_type}; send JSON, with the header Content-Type: application/json"
        raise ApiError(415, "not_json", message)
    body = await read_all(request)
    try:
        body.decode()
        return msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError as error:
        raise ApiError(400, "bad_json", f"the body is not UTF-8: {error}") from error
    except msgspec.ValidationError as error:
        raise ApiError(400, "wrong_type", f"the body does not fit: {error}") from error
    except msgspec.DecodeError as error:
        hint = "" if body else ". The body is empty. Send at least {}"
        raise ApiError(400, "bad_json", f"the body is not valid JSON: {error}{hint}") from error
    except RecursionError as error:
        raise ApiError(400, "bad_json", "the body is nested too deeply") from error


def read_query(request: web.Request, kind: type[T]) -> T:
    """Return the parameters of the query as a ``kind``. Raises :class:`ApiError` if they do not fit."""
    try:
        return msgspec.convert(dict(request.query), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "wrong_type", f"the query does not fit: {error}") from error
