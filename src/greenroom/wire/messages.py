"""Every message on the channels, as a type, and how it becomes a frame and back.

A received header is checked field by field against the type: what does not fit is a
:class:`~greenroom.wire.frames.FrameError`, and the peer that sent it is dropped.

Nothing changes a message, but they are not frozen: each zygote makes these classes at its start, and a frozen one takes
twice the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import ErrorInfo
from . import plain_json
from .frames import Frame, FrameError, Prefix, encode_frame
from .payload import MAX_BYTES

LONGEST_END = 1e9
"""Seconds of :attr:`AppFacts.end_timeout`."""

# --- supervisor -> zygote ------------------------------------------------------------------------


@dataclass(slots=True)
class ChildSettings:
    """What a child needs to know of the pool's options; travels in :class:`Configure`."""

    shutdown_timeout: float
    cleanup_timeout: float
    heartbeat_interval: float


@dataclass(slots=True)
class AppFacts:
    """What the supervisor, which never imports it, has to know of the app."""

    has_request: bool
    manifest: dict[str, Any]
    end_timeout: float = 0.0
    """Seconds that a job may take, once it has begun to end by itself, until its shutdown callbacks."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What it sets of Greenroom's settings: by name, a pair of value and origin."""

    def __post_init__(self) -> None:
        # Here, where both sides pass: no deadline can be made of NaN or infinity.
        self.end_timeout = min(max(0.0, self.end_timeout), LONGEST_END)


@dataclass(slots=True)
class Configure:
    """The first message to a zygote, to a spawned process, or to a script's own process: load this app."""

    app: str
    arguments: list[str]  # what the app finds in sys.argv after its own name
    handed: dict[str, Any] | None  # what the app's script has handed over in a process of its own, if it was run
    sys_path: list[str]
    generation: int
    pool_token: str
    open_files: int | None  # the soft limit to go back to, if the supervisor has raised its own
    child: ChildSettings
    fixed: list[str]  # settings that are not left to the app
    allow_threads: list[str]  # beside those that the app allows
    preload_timeout: float  # seconds: who has not answered by then is ended


@dataclass(slots=True)
class Fork:
    """Fork a process; its :data:`CHILD_FDS` travel along. The same ``launch_id`` is never forked twice."""

    launch_id: str


@dataclass(slots=True)
class Stop:
    """Exit, in order: the channel is closed next. Without it, a closed channel means a dead supervisor."""


CHILD_FDS = 6  # control, log, stdout, stderr, lifeline, heartbeat page: in this order

# --- zygote -> supervisor ------------------------------------------------------------------------


@dataclass(slots=True)
class Loading:
    """The zygote runs, and is about to import the app; its stack can be had at this fd of its own."""

    dump_fd: int


@dataclass(slots=True)
class Loaded:
    """The app is imported and preloaded; forks can be asked for."""

    import_seconds: float
    preload_seconds: float
    warnings: list[str]
    app: AppFacts


@dataclass(slots=True)
class LoadFailed:
    """The app cannot be served; the zygote exits."""

    error: ErrorInfo


@dataclass(slots=True)
class Forked:
    """The process exists; a pidfd travels along."""

    launch_id: str
    pid: int


@dataclass(slots=True)
class ForkFailed:
    launch_id: str
    message: str


@dataclass(slots=True)
class Stopped:
    """A child was stopped by a signal (SIGSTOP and its kin)."""

    launch_id: str
    signal: int


@dataclass(slots=True)
class Exited:
    """A child is dead: a zombie whose status was read, but which has not been reaped yet."""

    launch_id: str
    exit_code: int | None
    signal: int | None


@dataclass(slots=True)
class Reaped:
    """A child is gone, and so is all that it left behind."""

    launch_id: str
    cpu_seconds: float
    peak_memory_mb: float
    descendants_killed: int


# --- script -> supervisor ------------------------------------------------------------------------


@dataclass(slots=True)
class HandedOver:
    """The script has said what is to be served; it runs on beside the worker. After :class:`Loading`."""

    handed: dict[str, Any]


@dataclass(slots=True)
class NothingToRun:
    """The app is found by importing it: there is no main block, or it is not one that starts a worker."""


@dataclass(slots=True)
class StopWorker:
    """The script has closed its server: the worker is to end as if by SIGTERM."""


# --- supervisor -> child -------------------------------------------------------------------------


@dataclass(slots=True)
class Ask:
    """Would the app take this job? The body is its metadata. Any number of them, one at a time, before Start."""

    job_id: str
    source: str


@dataclass(slots=True)
class Start:
    """The one job; the frame's body is its metadata."""

    job_id: str


@dataclass(slots=True)
class Shutdown:
    """End the job: the entrypoint is told, then cancelled."""

    reason: str
    bounds_own_end: bool
    """A job that has begun to end by itself has no more time for that than one which had not."""


@dataclass(slots=True)
class Retire:
    """Exit: there will be no job."""


# --- child -> supervisor -------------------------------------------------------------------------


@dataclass(slots=True)
class Hello:
    """The child runs, its lifeline is armed, and it is about to prewarm."""

    pid: int
    dump_fd: int
    app: AppFacts | None = None
    """From a spawned process, which has no zygote to tell it."""


@dataclass(slots=True)
class Warm:
    prewarm_seconds: float


@dataclass(slots=True)
class PrewarmFailed:
    error: ErrorInfo


@dataclass(slots=True)
class Answer:
    """To :class:`Ask`; the body holds what the source of the session is to be told."""

    job_id: str
    accepted: bool
    reason: str
    final: bool  # no other worker need be asked either


@dataclass(slots=True)
class Started:
    """The acknowledgement of :class:`Start`, sent before the entrypoint is entered."""

    job_id: str


@dataclass(slots=True)
class Ending:
    """The job has begun to end by itself; its entrypoint, or the steps that belong to it, go on for a while."""


@dataclass(slots=True)
class Ended:
    """The entrypoint has ended; the body is its result. Callbacks and clean-up are still to come."""

    how: str  # "completed", "raised", "exited" or "cancelled"
    told: bool  # it had been told to end by then
    error: ErrorInfo | None = None


@dataclass(slots=True)
class CleaningUp:
    """The user's callbacks are over."""

    overrun: bool = False
    """Some of them took too long, and were cut off."""
    cut: str = ""
    """The steps before the callbacks that were cut off, as a sentence."""
    stacks: str | None = None
    """Of all that was cut off."""


Message = (
    Configure | Fork | Stop
    | Loading | Loaded | LoadFailed | Forked | ForkFailed | Stopped | Exited | Reaped
    | HandedOver | NothingToRun | StopWorker
    | Ask | Start | Shutdown | Retire
    | Hello | Warm | PrewarmFailed | Answer | Started | Ending | Ended | CleaningUp
)  # fmt: skip

_TYPES: tuple[type[Any], ...] = get_args(Message)
_KINDS: dict[type[Any], int] = {kind: number for number, kind in enumerate(_TYPES, start=1)}

MAX_ANSWER = 1024 * 1024
"""Bytes of what an app answers to an offer: it is kept for as long as the offer is."""
MAX_REASON = 2000
"""Characters of an app's reason to turn an offer down, beside the mark of a cut."""
_BODIES: dict[type[Any], int] = {Ask: MAX_BYTES, Start: MAX_BYTES, Answer: MAX_ANSWER, Ended: MAX_BYTES}
"""The messages that have a body, and its most bytes."""


def encode(message: Message, body: bytes = b"") -> bytes:
    """A message as the bytes of one frame."""
    header = plain_json.encoded(_as_dict(message)).encode("ascii")
    return encode_frame(_KINDS[type(message)], header, body)


def check(prefix: Prefix, expected: Any) -> None:
    """Raise :class:`FrameError` for a frame that is not to be read on: its kind or its size is wrong."""
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
        raise FrameError(f"{kind.__name__} with a body of {size} bytes; {_BODIES.get(kind, 0)} are allowed")


def _as_dict(message: Any) -> dict[str, Any]:
    # Not dataclasses.asdict, which copies deeply, and so touches many more pages of a fresh fork.
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
            raise FrameError(f"{kind.__name__}.{name} is too large a number") from None
    if hint == list[str]:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    elif hint == dict[str, Any]:
        fits = isinstance(value, dict)
    else:
        fits = type(value) is hint
    if not fits:
        raise FrameError(f"{kind.__name__}.{name} is a {type(value).__name__} instead of {hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise FrameError(f"{kind.__name__}.{name} is {value}, which is no amount")
    return value


def _hints_of(kind: type[Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: hint for name, hint in get_type_hints(kind).items() if name in names}


# Worked out here, in the zygote, so that no child has to.
_NESTED = (ErrorInfo, ChildSettings, AppFacts)
_HINTS = {kind: _hints_of(kind) for kind in (*_TYPES, *_NESTED)}
