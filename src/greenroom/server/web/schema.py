"""Types of the API's requests and answers, made from the pool's own types."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, Raw, Struct

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
    "NewPageCode",
    "Nothing",
    "PageCode",
    "PageToken",
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
    "pool_view",
]

JobId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:~-]{0,127}$")]
# In JSON, 3 and 3.0 are the same number. A schema with the type "integer" allows both.
WholeNumber = Annotated[float, Meta(ge=0, le=100_000, multiple_of=1)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


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
    q: Annotated[str, Meta(max_length=1000)] = ""
    """Search: words, and ``name:text`` for labels, keys of the metadata, ``outcome``, ``reason``, ``state``,
    ``source``, ``cause``, ``at``, ``since`` and ``until`` (``2h``, ``14:05``). ``*`` at the end of a text stands for
    any rest."""
    older: bool = False
    """True to list also jobs that only the history on disk knows, such as those of an earlier worker. A search finds
    them in any case."""
    utc_offset: Annotated[float, Meta(ge=-900, le=900)] = 0.0
    """Minutes by which the clock of the client is ahead of UTC. Times in ``q`` are those of this clock."""
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


class PageCode(Struct, forbid_unknown_fields=True):
    """Code that a browser changes for the token."""

    code: str


class NewPageCode(Struct):
    """Answer to ``POST /v1/page/codes``."""

    code: str | None
    """Null if a browser beside this client needs no code. Links are in the argument lists of browsers, which each
    process of this machine can read."""


class PageToken(Struct):
    """Answer to ``POST /v1/page/token``."""

    token: str | None


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
    room: int
    """Number of further jobs that ``capacity``, the memory and the CPUs allow, by what jobs have taken so far."""
    room_limit: Literal["max_jobs", "memory", "cpu"]
    """Limit that allows no more than ``room``."""
    idle_target: int
    warm_deficit: int
    """Number of idle processes below ``idle_target``."""
    turned_down: TurnedDownRecently
    session_mb: float | None
    """Private memory (MiB) of a job by the samples so far; ``null`` before the first sample."""
    session_cpus: float | None
    """CPUs that a job takes on average, after its start-up; ``null`` before the first sample."""
    start_cpu_seconds: float | None
    """CPU seconds of a job's process before the job and in its first four seconds; ``null`` before the first."""
    cpu_wait_ms: float
    """Mean wait (ms) of jobs for a CPU, each time that they have work."""
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
    detail: str | None = None
    cause: str | None = None
    """What the end has in common with others of its kind, such as ``failed, raised: KeyError at agent.py:12``."""
    source: str | None = None
    metadata: Any = None
    """Metadata of the job, as far as ``shown_metadata`` allows."""
    generation: int | None = None
    app_version: str | None = None
    """Version that the app names for its code: see ``App(version=...)``."""
    trace_id: str | None = None
    """Id of the job's trace, in hexadecimal digits; ``null`` without tracing."""
    process_id: str | None = None
    accepted: float | None = None
    """Time of the acceptance, in seconds since the epoch, as all times here."""
    started: float | None = None
    ended: float | None = None
    memory_mb: float | None = None
    """Private memory (MiB); ``null`` before it was measured."""
    cpu_seconds: float | None = None
    loop_lag: float | None = None
    """Seconds by which the last beat of the event loop came late."""
    beat_age: float | None = None
    """Seconds since the last beat of the event loop, which beats every second; ``null`` if the job does not run."""
    is_stuck: bool = False
    """True if the event loop stands still: its last beat is more than 1.5 s ago."""

    def add(self, known: dict[str, Any]) -> None:
        """Add what the history knows of the job."""
        for name in _OF_HISTORY:
            setattr(self, name, known[name])

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


_OF_HISTORY = [
    "detail",
    "cause",
    "source",
    "metadata",
    "generation",
    "app_version",
    "trace_id",
    "process_id",
    "accepted",
    "started",
    "ended",
    "memory_mb",
    "cpu_seconds",
    "loop_lag",
    "beat_age",
    "is_stuck",
]


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
    def of_stored(cls, plain: dict[str, Any]) -> ReportView:
        """Make a report from the history on disk, which has no results."""
        error = None if plain["error"] is None else ErrorInfo(**plain["error"])
        known = plain | {"timings": Timings(**plain["timings"]), "error": error}
        return cls(**known, result=Raw(b"null"), result_encoding=None, result_dropped=True)

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


class LineView(Struct):
    """Line of a job's log."""

    number: int
    at: float
    level: str
    origin: str
    text: str


class JobLog(Struct):
    """Answer to ``GET /v1/jobs/{id}/log``."""

    id: str
    lines: list[LineView]
    count: int
    """Number of all lines so far."""
    left_out: int
    """Number of lines between the first 100 and the last 400, which are not kept."""
    is_over: bool
    """True if the job has ended, and no more lines come."""


class ReadLog(Struct, forbid_unknown_fields=True):
    """Parameters of ``GET /v1/jobs/{id}/log``."""

    after: Annotated[int, Meta(ge=0)] = 0
    """Only lines with a higher number."""


class StepView(Struct):
    """Step in the life of a job."""

    at: float
    what: str
    detail: str


class SampleView(Struct):
    """Figures of a job at one moment."""

    at: float
    memory_mb: float | None
    cpu_seconds: float
    lag: float | None


class JobLife(Struct):
    """Answer to ``GET /v1/jobs/{id}/life``."""

    id: str
    steps: list[StepView]
    samples: list[SampleView]


class Stacks(Struct):
    """Answer to ``POST /v1/jobs/{id}/stack``."""

    id: str
    pid: int | None
    stacks: str
    """Python stacks of all threads, the latest call first, as ``faulthandler`` writes them."""


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
    [
        *get_type_hints(PoolStats).items(),
        ("processes", list[ProcessInfo]),
        ("walls", list[str]),
        ("missing_walls", dict[str, str]),
    ],
    namespace={"__doc__": "The answer to ``GET /v1/pool``."},
)


def pool_view(pool: ProcessPool) -> Struct:
    """Return the figures and the processes of the pool as an answer."""
    walls, missing = pool.walls
    figures = dataclasses.asdict(pool.stats())
    return PoolView(**figures, processes=list(pool.processes), walls=list(walls), missing_walls=dict(missing))
