"""Operations of the API as data. The routes and the OpenAPI document are made from the same list of operations."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from ... import __version__
from .bodies import expect_later
from .schema import ErrorBody

__all__ = ["Operation", "document", "routes_of"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Operation:
    """Request that a client can make."""

    method: str
    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, Any]
    """Type of the body for each status that is not an error, or a media type as text."""
    body: Any = None
    query: Any = None
    """Struct type with one field for each parameter of the query."""
    errors: tuple[int, ...] = ()
    is_open: bool = False
    """True if clients need no token. The answer then holds nothing about any job."""
    tags: tuple[str, ...] = field(default=("jobs",))
    head: Handler | None = None
    """Handler of HEAD, if the handler of GET waits or streams. HEAD is answered at once, with the headers alone."""


def routes_of(operations: Iterable[Operation]) -> list[web.RouteDef]:
    """Return the routes. An operation with GET also has a route for HEAD."""
    return [route for op in operations for route in _routes(op)]


def _routes(op: Operation) -> list[web.RouteDef]:
    if op.method != "GET":
        return [web.route(op.method, op.path, op.handler, expect_handler=expect_later)]
    get = web.get(op.path, op.handler, allow_head=False, expect_handler=expect_later)
    return [get, web.head(op.path, op.head or op.handler, expect_handler=expect_later)]


_REFERENCE = "#/components/schemas/{name}"
_ALWAYS = (400, 401, 403, 405, 408, 413, 415, 417, 429, 500, 503)
"""Statuses of errors that any request can get."""


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the whole OpenAPI document as plain data."""
    listed = list(operations)
    schemas, components = _schemas(listed)
    paths: dict[str, dict[str, Any]] = {}
    for op in listed:
        paths.setdefault(op.path, {})[op.method.lower()] = _operation(op, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Greenroom",
            "version": __version__,
            "summary": "Sessions in processes of their own: start, show and end sessions.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(operations: list[Operation]) -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    types: list[Any] = [ErrorBody]
    for op in operations:
        types += [kind for kind in (op.body, op.query, *op.answers.values()) if not _is_media_type(kind)]
    unique = list(dict.fromkeys(kind for kind in types if kind is not None))
    found, components = msgspec.json.schema_components(unique, ref_template=_REFERENCE)
    return dict(zip(unique, found, strict=True)), dict(components)


def _operation(op: Operation, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    doc = (op.handler.__doc__ or "").strip()
    shown: dict[str, Any] = {
        "operationId": op.handler.__name__,
        "summary": op.summary,
        "tags": list(op.tags),
        "responses": _responses(op, schemas),
        "security": [] if op.is_open else [{"token": []}, {}],
    }
    if doc:
        shown["description"] = doc
    parameters = [_path_parameter(name) for name in re.findall(r"{(\w+)}", op.path)]
    if op.query is not None:
        parameters += _query_parameters(op.query)
    if parameters:
        shown["parameters"] = parameters
    if op.body is not None:
        shown["requestBody"] = {"required": True, "content": {"application/json": {"schema": schemas[op.body]}}}
    return shown


def _responses(op: Operation, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, kind in op.answers.items():
        media, schema = (kind, {"type": "string"}) if _is_media_type(kind) else ("application/json", schemas[kind])
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": {media: {"schema": schema}}}
    error = {"content": {"application/json": {"schema": schemas[ErrorBody]}}}
    for status in sorted({*_ALWAYS, *op.errors} - set(op.answers)):
        responses[str(status)] = {"description": HTTPStatus(status).phrase, **error}
    return responses


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query_parameters(kind: Any) -> list[dict[str, Any]]:
    _, components = msgspec.json.schema_components([kind], ref_template=_REFERENCE)
    properties = components[kind.__name__]["properties"]
    required = components[kind.__name__].get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": schema}
        for name, schema in properties.items()
    ]


def _is_media_type(kind: Any) -> bool:
    return isinstance(kind, str)
