"""The OpenAPI document, made of the operations and the types they take and give."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from ... import __version__
from .operations import Operation
from .schema import ErrorBody

__all__ = ["document"]

_REFERENCE = "#/components/schemas/{name}"
_ALWAYS = (400, 401, 403, 405, 408, 413, 415, 417, 429, 500, 503)
"""Errors that any request can be answered with."""


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document, as plain data."""
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
            "summary": "Sessions in processes of their own: start them, look at them, end them.",
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
