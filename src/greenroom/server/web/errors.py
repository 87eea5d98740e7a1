"""Errors as answers, in the form that the schema declares."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from aiohttp import web

from ...errors import PoolClosed
from ...log_fields import log_fields
from .requests import json_response
from .schema import ApiError

__all__ = ["answer_errors", "error_response", "routing_error"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_logger = logging.getLogger("greenroom")


async def answer_errors(request: web.BaseRequest, handler: Handler) -> web.StreamResponse:
    """Return the answer to a request, also if its handler or the routing raises.

    A client that has gone gets no answer.
    """
    try:
        return await handler(request)
    except ApiError as error:
        return error_response(error)
    except PoolClosed as error:
        return error_response(ApiError(503, "no_capacity", str(error), reason="draining", retry_after=5.0))
    except web.RequestPayloadError as error:
        return error_response(ApiError(400, "bad_body", f"the body cannot be read: {error}"))
    except web.HTTPException as error:
        return error_response(routing_error(request, error), allow=error.headers.get("Allow"))
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        extra = log_fields("internal_error", method=request.method, path=request.path)
        _logger.exception("%s %s failed", request.method, request.path, extra=extra)
        return error_response(ApiError(500, "internal", "the worker failed at this request; its log has the cause"))


def routing_error(request: web.BaseRequest, error: web.HTTPException) -> ApiError:
    """Return an error of aiohttp in the form of the API."""
    if error.status == 404:
        return ApiError(404, "not_found", f"there is nothing at {request.path}")
    if error.status == 405:
        return ApiError(405, "method_not_allowed", f"{request.path} does not accept {request.method}")
    return ApiError(error.status, "bad_request", error.text or error.reason)


def error_response(error: ApiError, *, allow: str | None = None) -> web.Response:
    headers = {} if allow is None else {"Allow": allow}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="greenroom"'
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return json_response(error.body, status=error.status, headers=headers)
