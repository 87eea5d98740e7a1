"""What the API takes and gives, as types. Built from the pool's own, which are never declared again here."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from ..pool import JobHandle, ProcessPool
from ..report import ExitReport
from .results import json_of

__all__ = [
    "ApiError",
    "ErrorBody",
    "JobBrief",
    "JobStarted",
    "JobView",
    "StartJob",
    "encode",
    "pool_view",
    "report_view",
]

JobId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:~-]{0,127}$")]
Seconds = Annotated[float, Meta(gt=0, le=3600)]

encode = msgspec.json.Encoder().encode


class StartJob(Struct, forbid_unknown_fields=True):
    """The body of ``POST /v1/jobs``."""

    metadata: Raw = Raw(b"null")
    """Any JSON; passed on to the job without being decoded here."""
    id: JobId | None = None
    timeout: Seconds | None = None
    """By when the job must have started; by default ``launch_timeout``."""


class JobStarted(Struct):
    """The answer to ``POST /v1/jobs``."""

    id: str
    pid: int | None
    launch_type: Literal["warm", "cold"]
    state: str
    start_ms: float | None
    """From the request until the process had acknowledged the job."""

    @classmethod
    def of(cls, handle: JobHandle) -> JobStarted:
        seconds = handle.start_seconds
        start_ms = None if seconds is None else round(seconds * 1000, 3)
        return cls(handle.id, handle.pid, handle.launch_type, handle.state, start_ms)


class JobBrief(Struct):
    """A job in ``GET /v1/jobs``."""

    id: str
    pid: int | None
    launch_type: Literal["warm", "cold"] | None
    state: str
    start_ms: float | None
    outcome: str | None = None
    reason: str | None = None

    @classmethod
    def of_live(cls, handle: JobHandle) -> JobBrief:
        return cls(**msgspec.structs.asdict(JobStarted.of(handle)))

    @classmethod
    def of_ended(cls, report: ExitReport) -> JobBrief:
        times = report.timings
        start_ms = None if times.started is None else round((times.started - times.requested) * 1000, 3)
        assert report.job_id is not None
        return cls(report.job_id, report.pid, report.launch_type, "ended", start_ms, report.outcome, report.reason)


class JobView(JobBrief, kw_only=True):
    """The answer to ``GET /v1/jobs/{id}``."""

    report: dict[str, Any] | None = None
    """The fields of :class:`~greenroom.ExitReport`, once the job has ended."""


class ErrorDetail(Struct):
    """What went wrong: ``type`` for programs, ``message`` for people."""

    type: str
    message: str
    reason: str | None = None
    """Of a session that was not started: why."""


class ErrorBody(Struct):
    """The answer to whatever could not be done."""

    error: ErrorDetail


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self, status: int, type: str, message: str, *, reason: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(ErrorDetail(type, message, reason))
        self.retry_after = retry_after


def report_view(report: ExitReport, *, result_dropped: bool = False) -> dict[str, Any]:
    """A report as the API shows it. ``result_encoding`` tells how to read the result: base64 is of bytes."""
    shown = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    del shown["result_payload"]
    result, encoding = json_of(report)
    return {**shown, "result": Raw(result), "result_encoding": encoding, "result_dropped": result_dropped}


def pool_view(pool: ProcessPool) -> dict[str, Any]:
    """The answer to ``GET /v1/pool``."""
    return {**dataclasses.asdict(pool.stats()), "processes": pool.processes}
