"""What the API takes and gives, as types. Built from the pool's own, which are never declared again here."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, Raw, Struct

from ...errors import ErrorInfo
from ...pool import JobHandle, PoolStats, ProcessInfo, ProcessPool
from ...report import ExitReport, Outcome, Reason, Timings
from ...texts import clean
from .results import ResultEncoding, json_of, strict_json

__all__ = [
    "Alive",
    "ApiError",
    "CancelJob",
    "Drain",
    "DrainStarted",
    "ErrorBody",
    "ErrorDetail",
    "JobBrief",
    "JobList",
    "JobStarted",
    "JobView",
    "ListJobs",
    "Nothing",
    "PoolView",
    "Pressure",
    "Readiness",
    "Reloaded",
    "ReportView",
    "Resize",
    "Resized",
    "ShowJob",
    "StartJob",
    "TurnedDownRecently",
    "encode",
    "pool_view",
]

JobId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:~-]{0,127}$")]
# JSON does not tell 3 from 3.0, and a schema that says "integer" allows both.
WholeNumber = Annotated[float, Meta(ge=0, le=100_000, multiple_of=1)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]

_encode = msgspec.json.Encoder().encode


def encode(value: Any) -> bytes:
    """Return a value as JSON. NaN becomes ``null``, half a surrogate pair an escape."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        # Rare: the name of an app's file that is not UTF-8, or the text of a child that breaks the rules.
        return _encode(_cleaned(msgspec.to_builtins(value, builtin_types=(Raw,))))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): _cleaned(one) for key, one in value.items()}
    return [_cleaned(one) for one in value] if isinstance(value, list) else value


class StartJob(Struct, forbid_unknown_fields=True):
    """The body of ``POST /v1/jobs``."""

    metadata: Raw = msgspec.field(default_factory=lambda: Raw(b"null"))
    """Any JSON; passed on to the job without being decoded here."""
    id: JobId | None = None
    timeout: Seconds | None = None
    """How long it may wait for a process that is on its way, in seconds; by default ``offer_timeout``."""

    def __post_init__(self) -> None:
        # In Python's patterns, though not in those of JSON Schema, "$" also matches before a line feed at the end.
        if self.id is not None and self.id.endswith("\n"):
            raise ValueError("the id ends in a line feed")


class ListJobs(Struct, forbid_unknown_fields=True):
    """The parameters of ``GET /v1/jobs``. Each narrows the list down."""

    state: Literal["live", "reserved", "waiting", "starting", "running", "draining", "ending", "ended"] | None = None
    outcome: Outcome | None = None
    reason: Reason | None = None
    label: Annotated[str, Meta(pattern="^[^=]+=", max_length=1000)] | None = None
    """``NAME=TEXT``: the jobs that have this label, such as ``room=hall``."""
    limit: Annotated[int, Meta(ge=1, le=2000)] = 2000
    """No more than so many: the latest."""


class ShowJob(Struct, forbid_unknown_fields=True):
    """The parameters of ``GET /v1/jobs/{id}``."""

    wait: Annotated[float, Meta(ge=0, le=600)] = 0.0
    """Answer when the job has ended, or after so many seconds."""


class CancelJob(Struct, forbid_unknown_fields=True):
    """The parameters of ``DELETE /v1/jobs/{id}``."""

    # In a URL a character takes up to twelve bytes, and a longer line than 8,190 is refused before it is read.
    reason: Annotated[str, Meta(max_length=500)] = ""


class Resize(Struct, forbid_unknown_fields=True):
    """The body of ``POST /v1/pool/resize``."""

    num_idle_processes: WholeNumber
    max_idle_processes: WholeNumber | None = None


class Drain(Struct, forbid_unknown_fields=True):
    """The body of ``POST /v1/pool/drain``."""

    timeout: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    """How long accepted jobs may go on, in seconds; by default ``drain_timeout``."""


class Nothing(Struct, forbid_unknown_fields=True):
    """A body with nothing in it: ``{}``."""


class Reloaded(Struct):
    """The answer to ``POST /v1/pool/reload``."""

    generation: int
    """The generation that serves from now on."""


class Resized(Struct):
    """The answer to ``POST /v1/pool/resize``."""

    num_idle_processes: int
    max_idle_processes: int


class DrainStarted(Struct):
    """The answer to ``POST /v1/pool/drain``: it has begun, and the worker ends when it is done."""

    jobs: int
    timeout: float


class Alive(Struct):
    """The answer to ``GET /livez``."""

    alive: bool


class Readiness(Struct, omit_defaults=True):
    """The answer to ``GET /readyz``. ``detail`` is left out if there is a token, and it was not sent."""

    ready: bool
    reason: str | None = None
    detail: str | None = None


class TurnedDownRecently(Struct):
    """Sessions turned down within the last ``seconds``."""

    seconds: float
    total: int
    by_reason: dict[str, int]


class Pressure(Struct):
    """The answer to ``GET /pressure``: how much more this worker could take."""

    accepting: bool
    """Whether a session could start now."""
    reason: str | None
    running: int
    """Accepted jobs that have not ended."""
    idle: int
    warming: int
    capacity: int
    """Jobs that may live at any one time."""
    free: int
    """How many more that are."""
    idle_target: int
    warm_deficit: int
    """How many idle processes are missing."""
    turned_down: TurnedDownRecently
    session_mb: float | None
    """Memory (MiB) that a session has to itself, by those that were looked at."""
    sources: dict[str, dict[str, Any]]
    """What each source of sessions says of itself."""


class JobStarted(Struct):
    """The answer to ``POST /v1/jobs``."""

    id: str
    pid: int | None
    launch_type: Literal["warm", "cold"]
    state: str
    start_ms: float | None
    """From the request until the process had acknowledged the job."""
    answer: Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
    """What the app's ``request`` function wants whoever asked to be told; empty if there is nothing."""

    @classmethod
    def of(cls, handle: JobHandle, answer: dict[str, Any]) -> JobStarted:
        brief = JobBrief.of_live(handle)
        told = Raw(strict_json(json.dumps(answer).encode()))
        return cls(brief.id, brief.pid, handle.launch_type, brief.state, brief.start_ms, told)


class JobBrief(Struct):
    """A job in ``GET /v1/jobs``."""

    id: str
    pid: int | None
    launch_type: Literal["warm", "cold"] | None
    state: str
    start_ms: float | None
    labels: dict[str, str]
    """What its source calls it: of a LiveKit job ``room``, ``room_id``, ``dispatch`` and ``agent``."""
    outcome: str | None = None
    reason: str | None = None

    @classmethod
    def of_live(cls, handle: JobHandle) -> JobBrief:
        seconds = handle.start_seconds
        start_ms = None if seconds is None else round(seconds * 1000, 3)
        return cls(handle.id, handle.pid, handle.launch_type, handle.state, start_ms, dict(handle.labels))

    @classmethod
    def of_ended(cls, report: ExitReport) -> JobBrief:
        times = report.timings
        start_ms = None if times.started is None else round((times.started - times.requested) * 1000, 3)
        assert report.job_id is not None
        known = (report.job_id, report.pid, report.launch_type, "ended", start_ms, dict(report.labels))
        return cls(*known, report.outcome, report.reason)


class ReportView(Struct):
    """An :class:`~greenroom.ExitReport`."""

    outcome: Outcome
    reason: Reason
    detail: str
    timings: Timings
    job_id: str | None
    process_id: str | None
    pid: int | None
    generation: int | None
    launch_type: Literal["warm", "cold"] | None
    exit_code: int | None
    signal: int | None
    error: ErrorInfo | None
    stack_dump: str | None
    peak_memory_mb: float | None
    cpu_seconds: float | None
    log_records_dropped: int
    descendants_killed: int
    labels: dict[str, str]
    result: Raw
    result_encoding: ResultEncoding | None
    """How to read the result; base64 is of bytes."""
    result_dropped: bool
    """It was too large to be kept this long."""

    @classmethod
    def of(cls, report: ExitReport, *, result_dropped: bool = False) -> ReportView:
        shown = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
        del shown["result_payload"]
        shown["labels"] = dict(report.labels)
        result, encoding = json_of(report)
        return cls(**shown, result=Raw(result), result_encoding=encoding, result_dropped=result_dropped)


class JobView(JobBrief, kw_only=True):
    """The answer to ``GET /v1/jobs/{id}``."""

    report: ReportView | None = None
    """Once the job has ended."""


class JobList(Struct):
    """The answer to ``GET /v1/jobs``: those that ended, oldest first, then those that live."""

    jobs: list[JobBrief]


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


PoolView = msgspec.defstruct(
    "PoolView",
    [*get_type_hints(PoolStats).items(), ("processes", list[ProcessInfo])],
    namespace={"__doc__": "The answer to ``GET /v1/pool``."},
)


def pool_view(pool: ProcessPool) -> Struct:
    """The pool's figures, and its processes."""
    return PoolView(**dataclasses.asdict(pool.stats()), processes=list(pool.processes))
