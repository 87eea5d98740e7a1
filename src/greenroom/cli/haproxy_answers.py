"""Answers that HAProxy gives itself, in the form that the API's errors have. Pure."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

__all__ = ["NOT_FOUND", "UNAUTHORIZED", "error_files"]

_START_UNKNOWN = (
    "no answer came from the worker, so the job may have begun. If its worker has died, the job has died with it. Send "
    "it again only if it may begin twice, or if its id (if you gave one) is not found"
)
_NO_WORKER = "no worker has room for a job now. The job did not begin, and will not. Send it again"
_NO_WORKER_NOW = "no worker has room for a job now. If the job had begun, it has died with its worker. Send it again"
_UNREACHABLE = (
    "the worker that has this job, or may have it, does not answer. If the worker has died, the job has died with it. "
    "Ask again: a new worker of the same name answers 410 (worker_lost), or 404 to an id of a client's"
)


def _error(kind: str, message: str, *, reason: str | None = None) -> str:
    """Return the body of an error."""
    return json.dumps({"error": {"type": kind, "message": message, "reason": reason}}, separators=(",", ":"))


NOT_FOUND = _error(
    "not_found",
    "this address has several workers. It starts a job (POST /v1/jobs), and shows, awaits and cancels it "
    "(/v1/jobs/ID). All else is below the name of a worker, as in /w/NAME/v1/pool; / lists the workers",
)
UNAUTHORIZED = _error("unauthorized", "this needs the token of the proxy. Send the header Authorization: Bearer TOKEN")


def error_files(*, rerun_broken: bool) -> dict[str, str]:
    """Return the files for ``errorfile``, by name: a whole HTTP answer each.

    With ``rerun_broken``, HAProxy also repeats a start whose worker gave no answer. So its last "no" does not mean that
    the job never began.
    """
    no_worker = _NO_WORKER_NOW if rerun_broken else _NO_WORKER
    return {
        "408.http": _answer(408, _error("body_timeout", "the body was not complete in time")),
        "start-502.http": _answer(502, _error("start_unknown", _START_UNKNOWN)),
        "start-503.http": _answer(503, _error("no_worker", no_worker, reason="no_worker"), retry_after=1),
        "start-504.http": _answer(504, _error("start_unknown", _START_UNKNOWN)),
        "lookup-502.http": _answer(502, _error("worker_unreachable", _UNREACHABLE)),
        "lookup-503.http": _answer(503, _error("worker_unreachable", _UNREACHABLE), retry_after=1),
        "lookup-504.http": _answer(504, _error("worker_unreachable", _UNREACHABLE)),
    }


def _answer(status: int, body: str, *, retry_after: int | None = None) -> str:
    headers: dict[str, Any] = {"Content-Type": "application/json; charset=utf-8", "Content-Length": len(body)}
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", body])
