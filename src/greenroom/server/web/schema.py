"""Types of the API's requests and answers, made from the pool's own types."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, Raw, Struct

from ...clean_text import clean
from ...errors import ErrorInfo
from ...exit_reasons import Outcome, Reason
from ...exit_report import ExitReport, Timings
from ...pool import JobHandle, PoolStats, ProcessInfo, ProcessPool
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
# In JSON, 3 and 3.0 are the same number. A schema with the type "integer" allows both.
WholeNumber = Annotated[float, Meta(ge=0, le=100_000, multiple_of=1)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]

_encode = msgspec.json.Encoder().encode


def encode(value: Any) -> bytes:
    """Return a value as JSON. NaN becomes ``null``, and half a surrogate pair becomes an escape."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        # Rare: the name of the app's file is not UTF-8, or a child has sent text that is not valid.
        return _encode(_cleaned(msgspec.to_builtins(value, builtin_types=(Raw,))))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): _cleaned(one) for key, one in value.items()}
    return [_cleaned(one) for one in value] if isinstance(value, list) else value


class StartJob(Struct, forbid_unknown_fields=True):
    """Body of ``POST /v1/jobs``."""

    metadata: Raw = msgspec.field(default_factory=lambda: Raw(b"null"))
    """Any JSON value, which the job gets. The worker does not decode it."""
    id: JobId | None = None
    timeout: Seconds | None = None
    """Seconds to wait for a process that is warming; by default ``offer_timeout``."""

    def __post_init__(self) -> None:
        # In Python's patterns, "$" also matches before a line feed at the end. In JSON Schema, "$" does not.
        if self.id is not None and self.id.endswith("\n"):
            raise ValueError("the id ends in a line feed")


class ListJobs(Struct, forbid_unknown_fields=True):
    """Parameters of ``GET /v1/jobs``. Each parameter narrows the list."""

    state: Literal["live", "reserved", "waiting", "starting", "running", "draining", "ending", "ended"] | None = None
    outcome: Outcome | None = None
    reason: Reason | None = None
    label: Annotated[str, Meta(pattern="^[^=]+=", max_length=1000)] | None = None
    """Label that the jobs have, as ``NAME=TEXT``. An example is ``room=hall``."""
    limit: Annotated[int, Meta(ge=1, le=2000)] = 2000
    """Most jobs to list. If there are more, the latest are listed."""


class ShowJob(Struct, forbid_unknown_fields=True):
    """Parameters of ``GET /v1/jobs/{id}``."""

    wait: Annotated[float, Meta(ge=0, le=600)] = 0.0
    """Seconds to wait for the end of the job before the answer."""


class CancelJob(Struct, forbid_unknown_fields=True):
    """Parameters of ``DELETE /v1/jobs/{id}``."""

    # In a URL, a character takes up to 12 bytes. aiohttp refuses a request line of more than 8,190 bytes.
    reason: Annotated[str, Meta(max_length=500)] = ""


class Resize(Struct, forbid_unknown_fields=True):
    """Body of ``POST /v1/pool/resize``."""

    num_idle_processes: WholeNumber
    max_idle_processes: WholeNumber | None = None


class Drain(Struct, forbid_unknown_fields=True):
    """Body of ``POST /v1/pool/drain``."""

    timeout: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    """Seconds that accepted jobs may go on; by default ``drain_timeout``."""


class Nothing(Struct, forbid_unknown_fields=True):
    """Empty body: ``{}``."""


class Reloaded(Struct):
    """Answer to ``POST /v1/pool/reload``."""

    generation: int
    """Number of the generation of code that serves from now on."""


class Resized(Struct):
    """Answer to ``POST /v1/pool/resize``."""

    num_idle_processes: int
    max_idle_processes: int


class DrainStarted(Struct):
    """Answer to ``POST /v1/pool/drain``. The drain has begun, and the worker ends after it."""

    jobs: int
    timeout: float


class Alive(Struct):
    """Answer to ``GET /livez``."""

    alive: bool


class Readiness(Struct, omit_defaults=True):
    """Answer to ``GET /readyz``. If the worker has a token, a client without the token does not get ``detail``."""

    ready: bool
    reason: str | None = None
    detail: str | None = None


class TurnedDownRecently(Struct):
    """Rejections of jobs within the last ``seconds``."""

    seconds: float
    total: int
    by_reason: dict[str, int]


class Pressure(Struct):
    """Answer to ``GET /pressure``: the load of the worker, and its room for more jobs."""

    accepting: bool
    """True if a job could start now."""
    reason: str | None
    running: int
    """Number of accepted jobs that have not ended."""
    idle: int
    warming: int
    capacity: int
    """Most jobs that may be live at any one time."""
    free: int
    """Number of further jobs that ``capacity`` allows."""
    idle_target: int
    warm_deficit: int
    """Number of idle processes below ``idle_target``."""
    turned_down: TurnedDownRecently
    session_mb: float | None
    """Private memory (MiB) of a job by the samples so far; ``null`` before the first sample."""
    sources: dict[str, dict[str, Any]]
    """Status of each source of jobs, by its name."""


class JobStarted(Struct):
    """Answer to ``POST /v1/jobs``."""

    id: str
    pid: int | None
    launch_type: Literal["warm", "cold"]
    state: str
    start_ms: float | None
    """Milliseconds from the request until the process had acknowledged the job."""
    answer: Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
    """Answer of the app's ``request`` function for the client; empty if there is none."""

    @classmethod
    def of(cls, handle: JobHandle, answer: dict[str, Any]) -> JobStarted:
        brief = JobBrief.of_live(handle)
        encoded = Raw(strict_json(json.dumps(answer).encode()))
        return cls(brief.id, brief.pid, handle.launch_type, brief.state, brief.start_ms, encoded)


class JobBrief(Struct):
    """Job in ``GET /v1/jobs``."""

    id: str
    pid: int | None
    launch_type: Literal["warm", "cold"] | None
    state: str
    start_ms: float | None
    labels: dict[str, str]
    """Names that the source has for the job. A LiveKit job has ``room``, ``room_id``, ``dispatch`` and ``agent``."""
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
    """Report of a job that has ended."""

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
    """Encoding of ``result``. With ``base64``, the result is bytes."""
    result_dropped: bool
    """True if the result was dropped to bound memory."""

    @classmethod
    def of(cls, report: ExitReport, *, result_dropped: bool = False) -> ReportView:
        shown = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
        del shown["result_payload"]
        shown["labels"] = dict(report.labels)
        result, encoding = json_of(report)
        return cls(**shown, result=Raw(result), result_encoding=encoding, result_dropped=result_dropped)


class JobView(JobBrief, kw_only=True):
    """Answer to ``GET /v1/jobs/{id}``."""

    report: ReportView | None = None
    """Report of the job, once the job has ended."""


class JobList(Struct):
    """Answer to ``GET /v1/jobs``: jobs that have ended, oldest first, and then live jobs."""

    jobs: list[JobBrief]


class ErrorDetail(Struct):
    """Error, with ``type`` for programs and ``message`` for people."""

    type: str
    message: str
    reason: str | None = None
    """Reason why a job was not started."""


class ErrorBody(Struct):
    """Answer to a request that has failed."""

    error: ErrorDetail


class ApiError(Exception):
    """Error that is sent as the answer to a request."""

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
    """Return the figures and the processes of the pool as an answer."""
    return PoolView(**dataclasses.asdict(pool.stats()), processes=list(pool.processes))
