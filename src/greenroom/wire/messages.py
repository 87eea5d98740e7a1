"""Types of all messages on the channels, and their conversion to frames and back.

A received header is checked field by field against the type. A field that does not fit raises
:class:`~greenroom.wire.frames.FrameError`, and the receiver drops the peer.

No code changes a message, but the classes are not frozen. Each zygote makes these classes at its start, and a frozen
class takes twice the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..app_facts import AppFacts
from ..errors import ErrorInfo
from . import plain_json
from .frames import Frame, FrameError, Prefix, encode_frame
from .payload import MAX_BYTES

# --- supervisor -> zygote ------------------------------------------------------------------------


@dataclass(slots=True)
class ChildSettings:
    """Pool options that a child needs, in seconds, sent in :class:`Configure`."""

    shutdown_timeout: float
    cleanup_timeout: float
    heartbeat_interval: float


@dataclass(slots=True)
class Configure:
    """First message to a zygote, a spawned process or the process of a script: the request to load an app."""

    app: str
    arguments: list[str]  # of sys.argv, after the name of the app
    handed: dict[str, Any] | None  # data that the app's script has handed over from its own process, if it has run
    sys_path: list[str]
    generation: int
    pool_token: str
    open_files: int | None  # the soft limit to restore, if the supervisor has raised its own
    child: ChildSettings
    fixed: list[str]  # names of the settings that the app cannot change
    allow_threads: list[str]  # names of threads, in addition to those that the app allows
    preload_timeout: float  # seconds: the supervisor ends a receiver that has not answered by then
    huge_pages_seconds: float | None = None  # CPU seconds for a zygote to move its memory into huge pages
    walls: str = "off"  # the option of the same name
    outside: str = ""  # name of a socket outside of the outer domain, to try the wall for abstract sockets
    domain_problem: str = ""  # reason why the receiver is not in the outer domain, though it should be


@dataclass(slots=True)
class Fork:
    """Request to fork a process. The packet carries its :data:`CHILD_FDS`. A ``process_id`` is never forked twice."""

    process_id: str


@dataclass(slots=True)
class Stop:
    """Request to exit, before the supervisor closes the channel. A close without it means a dead supervisor."""


CHILD_FDS = 6  # control, log, stdout, stderr, lifeline, heartbeat page: in this order

# --- zygote -> supervisor ------------------------------------------------------------------------


WALLS = ("memory", "signals", "sockets", "limits")
"""Names of the walls around sessions: see :mod:`greenroom.zygote.walls`."""


@dataclass(slots=True)
class Loading:
    """Report that the zygote runs and will import the app next. ``dump_fd`` is its own fd for stack dumps."""

    dump_fd: int
    missing_walls: dict[str, Any] | None = None
    """Cause for each wall that does not stand, by a trial; ``None`` without a trial."""


@dataclass(slots=True)
class ImageMemory:
    """Memory of a loaded zygote, which its forks share."""

    anonymous_mb: float
    """Memory (MiB) without a file. A fork copies its page tables."""
    huge_mb: float
    """Part of it in huge pages."""
    arrange_seconds: float
    """CPU time that the zygote took to move this part."""
    problem: str
    """Reason why no more of it is in huge pages."""


@dataclass(slots=True)
class Loaded:
    """Report that the app is imported and preloaded. The zygote accepts :class:`Fork` from now on."""

    import_seconds: float
    preload_seconds: float
    image: ImageMemory
    warnings: list[str]
    app: AppFacts
    digest: str
    """Digest of the files of all modules that the zygote has imported."""


@dataclass(slots=True)
class LoadFailed:
    """Report that the app cannot be served. The zygote exits."""

    error: ErrorInfo


@dataclass(slots=True)
class Forked:
    """Report that the process exists. The packet carries its pidfd."""

    process_id: str
    pid: int
    inherited_mb: float
    """Memory (MiB) that the process has from its zygote, without the pages of files."""


@dataclass(slots=True)
class ForkFailed:
    process_id: str
    message: str


@dataclass(slots=True)
class Stopped:
    """Report that a signal (SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU) has stopped a child."""

    process_id: str
    signal: int


@dataclass(slots=True)
class Exited:
    """Report that a child is dead. The zygote has read the status of the zombie, and has not reaped it yet."""

    process_id: str
    exit_code: int | None
    signal: int | None


@dataclass(slots=True)
class Reaped:
    """Report that a child is reaped, and that all its descendants are gone."""

    process_id: str
    cpu_seconds: float
    peak_memory_mb: float
    descendants_killed: int


# --- script -> supervisor ------------------------------------------------------------------------


@dataclass(slots=True)
class HandedOver:
    """Data of the app that the script wants served. The script runs on beside the worker. Follows :class:`Loading`."""

    handed: dict[str, Any]


@dataclass(slots=True)
class NothingToRun:
    """Report that an import finds the app: the script has no main block, or its main block starts no worker."""


@dataclass(slots=True)
class StopWorker:
    """Report that the script has closed its server. The worker ends as after a SIGTERM."""


# --- supervisor -> child -------------------------------------------------------------------------


@dataclass(slots=True)
class Ask:
    """Question to the resident process. A question to the request hook is about a job; its body is the metadata."""

    number: int
    topic: str
    job_id: str
    source: str


@dataclass(slots=True)
class Withdraw:
    """Order to cancel the call that answers this question, because no caller waits for the answer any more."""

    number: int


@dataclass(slots=True)
class News:
    """News for the resident process. The body is the content of the news."""

    topic: str
    key: str
    is_over: bool
    """True if the news is not valid any more. Then there is no body."""


@dataclass(slots=True)
class Start:
    """The only job of the child. The body is the job's metadata."""

    job_id: str
    trace_parent: str | None = None
    """Trace context of the job (W3C ``traceparent``), if it has one."""


@dataclass(slots=True)
class Shutdown:
    """Order to end the job. The child notifies the entrypoint, then cancels it."""

    reason: str
    bounds_own_end: bool
    """True if a job that has begun to end by itself gets only the time that any other job gets."""


@dataclass(slots=True)
class Retire:
    """Order to exit without a job."""


# --- child -> supervisor -------------------------------------------------------------------------


@dataclass(slots=True)
class Hello:
    """Report that the child runs and that its lifeline is armed. Prewarm begins next."""

    pid: int
    dump_fd: int
    app: AppFacts | None = None
    """Facts of the app, only from a spawned process: it has no zygote that sends them."""
    missing_walls: dict[str, Any] | None = None
    """As in :class:`Loading`, only from a spawned process."""


@dataclass(slots=True)
class Warm:
    prewarm_seconds: float


@dataclass(slots=True)
class PrewarmFailed:
    error: ErrorInfo


@dataclass(slots=True)
class Answer:
    """Answer to :class:`Ask`. The body is data for the asker, such as the source of the job."""

    number: int
    accepted: bool
    reason: str
    final: bool  # the asker need not ask another worker either


@dataclass(slots=True)
class Started:
    """Acknowledgement of :class:`Start`, which the child sends before it enters the entrypoint."""

    job_id: str


@dataclass(slots=True)
class Ending:
    """Report that the job has begun to end by itself. The entrypoint, or steps that belong to it, still run."""


@dataclass(slots=True)
class Ended:
    """Report that the entrypoint has ended. The body is the result. Callbacks and clean-up follow."""

    how: str  # "completed", "raised", "exited" or "cancelled"
    told: bool  # the supervisor had asked for the end before
    error: ErrorInfo | None = None


@dataclass(slots=True)
class CleaningUp:
    """Report that the user's shutdown callbacks are over."""

    overrun: bool = False
    """True if some callbacks took too long and were cut off."""
    cut: str = ""
    """Steps before the callbacks that were cut off, as a sentence."""
    stacks: str | None = None
    """Stacks of all callbacks and steps that were cut off."""


Message = (
    Configure | Fork | Stop
    | Loading | Loaded | LoadFailed | Forked | ForkFailed | Stopped | Exited | Reaped
    | HandedOver | NothingToRun | StopWorker
    | Ask | Withdraw | News | Start | Shutdown | Retire
    | Hello | Warm | PrewarmFailed | Answer | Started | Ending | Ended | CleaningUp
)  # fmt: skip

_TYPES: tuple[type[Any], ...] = get_args(Message)
_KINDS: dict[type[Any], int] = {kind: number for number, kind in enumerate(_TYPES, start=1)}

MAX_ANSWER = 1024 * 1024
"""Most bytes of an app's answer to a question. The answer to an offer is kept as long as the offer."""
MAX_REASON = 2000
"""Most characters of an app's reason to say no, without the mark of a cut."""
_BODIES: dict[type[Any], int] = {
    Ask: MAX_BYTES,
    News: MAX_BYTES,
    Start: MAX_BYTES,
    Answer: MAX_ANSWER,
    Ended: MAX_BYTES,
}
"""Messages that have a body, with the most bytes of the body."""


def encode(message: Message, body: bytes = b"") -> bytes:
    """Return a message as the bytes of one frame."""
    header = plain_json.encoded(_as_dict(message)).encode("ascii")
    return encode_frame(_KINDS[type(message)], header, body)


def check(prefix: Prefix, expected: Any) -> None:
    """Raise :class:`FrameError` if the kind or the size of a frame is wrong, before its body is read."""
    _check_body(_expected_type(prefix.kind, expected), prefix.body_size)


def decode(frame: Frame, expected: Any) -> Any:
    """Return the message in a frame, which must be of one of the expected types (a type, or a union)."""
    kind = _expected_type(frame.kind, expected)
    _check_body(kind, len(frame.body))
    try:
        header = plain_json.decoded(frame.header)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the header of a {kind.__name__} is not JSON: {error}") from None
    return _build(kind, header)


def _expected_type(kind: int, expected: Any) -> Any:
    found = _TYPES[kind - 1] if 0 < kind <= len(_TYPES) else None
    if found is None or found not in (get_args(expected) or (expected,)):
        raise FrameError(f"a message of kind {kind} does not belong on this channel")
    return found


def _check_body(kind: Any, size: int) -> None:
    if size > _BODIES.get(kind, 0):
        raise FrameError(f"{kind.__name__} with a body of {size} bytes; at most {_BODIES.get(kind, 0)} are allowed")


def _as_dict(message: Any) -> dict[str, Any]:
    # Not dataclasses.asdict: it copies deeply, so a fresh fork would have to copy many more pages.
    values = {name: getattr(message, name) for name in _HINTS[type(message)]}
    return {name: _as_dict(value) if is_dataclass(value) else value for name, value in values.items()}


def _build(kind: Any, values: object) -> Any:
    if not isinstance(values, dict):
        raise FrameError(f"{kind.__name__} is a {type(values).__name__} instead of an object")
    hints = _HINTS[kind]
    if values.keys() != hints.keys():
        raise FrameError(f"{kind.__name__} has the fields {sorted(values)} instead of {sorted(hints)}")
    built = kind(**{name: _checked(kind, name, hints[name], value) for name, value in values.items()})
    return built.bounded() if isinstance(built, ErrorInfo) else built


def _checked(kind: type[Any], name: str, hint: Any, value: object) -> Any:
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
    if hint in _NESTED:
        return _build(hint, value)
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise FrameError(f"{kind.__name__}.{name} is too large") from None
    if hint == list[str]:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    elif hint == dict[str, Any]:
        fits = isinstance(value, dict)
    else:
        fits = type(value) is hint
    if not fits:
        raise FrameError(f"{kind.__name__}.{name} is a {type(value).__name__} instead of {hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise FrameError(f"{kind.__name__}.{name} is {value}, not a finite number")
    return value


def _hints_of(kind: type[Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: hint for name, hint in get_type_hints(kind).items() if name in names}


# Computed at import, in the zygote, so that no child has to compute it.
_NESTED = (ErrorInfo, ChildSettings, AppFacts, ImageMemory)
_HINTS = {kind: _hints_of(kind) for kind in (*_TYPES, *_NESTED)}
