"""What the API can do, as data: one list from which both the routes and the OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from .bodies import expect_later

__all__ = ["Operation", "routes_of"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One request that can be made."""

    method: str
    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, Any]
    """The type of the body for each status that is not an error's; or a media type, as text."""
    body: Any = None
    query: Any = None
    """A struct whose fields are the parameters."""
    errors: tuple[int, ...] = ()
    is_open: bool = False
    """Whether it is answered without a token: it then tells nothing of any session."""
    tags: tuple[str, ...] = field(default=("jobs",))
    head: Handler | None = None
    """The handler of HEAD where that of GET waits or streams: HEAD is answered at once, with headers alone."""


def routes_of(operations: Iterable[Operation]) -> list[web.RouteDef]:
    """Return the routes; an operation by GET also has one by HEAD."""
    return [route for op in operations for route in _routes(op)]


def _routes(op: Operation) -> list[web.RouteDef]:
    if op.method != "GET":
        return [web.route(op.method, op.path, op.handler, expect_handler=expect_later)]
    get = web.get(op.path, op.handler, allow_head=False, expect_handler=expect_later)
    return [get, web.head(op.path, op.head or op.handler, expect_handler=expect_later)]
