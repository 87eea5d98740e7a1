"""Errors that Greenroom raises. A message says what failed, the cause and the remedy."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .clean_text import clean, cut_end, cut_start

__all__ = [
    "AppLoadError",
    "ErrorInfo",
    "GreenroomError",
    "LaunchError",
    "NoCapacity",
    "OptionError",
    "PayloadError",
    "PoolClosed",
    "PrewarmError",
    "RejectionReason",
    "ServiceError",
    "WallMissing",
]

RejectionReason = Literal[
    "full",
    "warming",
    "memory",
    "cpu",
    "breaker_open",
    "draining",
    "load",
    "offer_timeout",
    "rejected_by_app",
    "stalled",
]
"""Reason why a job is rejected. The table in docs/exit-reasons.md explains each reason."""


class GreenroomError(Exception):
    """Base class of all errors that Greenroom raises."""


class OptionError(GreenroomError, ValueError):
    """Unknown option, or a value that is not allowed. Nothing was started or changed."""


def fresh(error: GreenroomError) -> GreenroomError:
    """Return a copy of an error, to be raised.

    A raised exception refers to the frames that it passes through. The frames refer to the object that keeps the
    error for later. If that error itself were raised, this would be a reference cycle. No object keeps the copy.
    """
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    return copy


class PayloadError(GreenroomError, ValueError):
    """Metadata or a result that is not plain data (JSON or bytes), or that is too large."""


class AppLoadError(GreenroomError):
    """App that could not be loaded: its import or ``preload`` failed, or the zygote must not fork with it."""


class WallMissing(AppLoadError):
    """Wall around sessions that cannot be raised, though the option ``walls`` is ``require``."""

    @classmethod
    def of(cls, missing: Mapping[str, str]) -> WallMissing:
        """Return the error for these walls, each with the cause."""
        causes = "; ".join(f"{name}: {cause}" for name, cause in missing.items())
        return cls(
            f"walls is require, but a wall around sessions is missing: {causes}. Use a kernel that has it, take the "
            "worker's capabilities away, or set walls to auto"
        )


class PrewarmError(GreenroomError):
    """New code whose processes did not become warm."""


class LaunchError(GreenroomError):
    """Accepted job that did not start. The job does not run, and will not run."""


class PoolClosed(GreenroomError):
    """Call on a pool that was not started, drains, or is closed."""


class ServiceError(GreenroomError):
    """Call of a service that has no answer.

    ``reason`` is one of:

    - ``unknown``: the app has no service of this name;
    - ``not_ready``: the service loads, or is started again;
    - ``not_loaded``: the loading of the service raised an exception, which is in ``error``;
    - ``busy``: the service works on other calls;
    - ``timeout``: the service works on this call;
    - ``raised``: the service raised an exception, which is in ``error``;
    - ``died``: the process of the service died.

    With ``timeout``, ``raised`` and ``died`` the service had begun the call. With the other reasons it had not.
    """

    def __init__(self, message: str, *, reason: str, error: ErrorInfo | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        """Name of the reason."""
        self.error = error
        """Exception that the service raised, if any."""


class NoCapacity(GreenroomError):
    """Rejection of a job: at once, or when the deadline of the launch or reservation has passed.

    ``reason`` is one of :data:`RejectionReason`. A pool gives ``full``, ``warming``, ``draining`` or ``breaker_open``.
    A worker also gives ``memory``, ``cpu``, ``stalled`` or ``rejected_by_app``. For a LiveKit app, it also gives
    ``load`` or ``offer_timeout``.
    """

    def __init__(self, message: str, *, reason: RejectionReason, retry_after: float) -> None:
        super().__init__(message)
        self.reason = reason
        """Name of the reason."""
        self.retry_after = retry_after
        """Estimate of the seconds until the next try makes sense."""


ERROR_CHARACTERS = 32_000
"""Most characters of an exception's message, and of its traceback, without the mark of a cut."""
_LONGEST_NAME, _MARK = 200, 64


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Exception as text, so that it can go from one process to another."""

    type: str
    """Name of the class, with its module."""
    message: str
    """Text of the exception, cut to 32,000 characters."""
    traceback: str = ""
    """Formatted traceback, cut to its last 32,000 characters."""

    @classmethod
    def of(cls, error: BaseException, *, limit: int = ERROR_CHARACTERS) -> ErrorInfo:
        """Describe an exception, also an exception whose ``__str__`` raises.

        Message and traceback are cut to ``limit`` characters. A mark shows the cut.
        """
        name = name_of(type(error))
        try:
            message = str(error)
        except BaseException as failure:  # also SystemExit: the first exception is the one to describe
            message = f"<no message: its __str__ raised {type(failure).__name__}>"
        lines = cut_start(traceback_of(error), limit)
        return cls(clean(cut_end(name, _LONGEST_NAME)), clean(cut_end(message, limit)), clean(lines))

    def bounded(self) -> ErrorInfo:
        """Return a copy within the limits of :meth:`of`, because another process can send texts of any length."""
        name, message, traceback = clean(self.type), clean(self.message), clean(self.traceback)
        if len(name) > _LONGEST_NAME + _MARK:
            name = cut_end(name, _LONGEST_NAME)
        if len(message) > ERROR_CHARACTERS + _MARK:
            message = cut_end(message, ERROR_CHARACTERS)
        if len(traceback) > ERROR_CHARACTERS + _MARK:
            traceback = cut_start(traceback, ERROR_CHARACTERS)
        return ErrorInfo(name, message, traceback)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


def name_of(kind: type[BaseException]) -> str:
    """Return the name of a class of exceptions, as :attr:`ErrorInfo.type` has it."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def traceback_of(error: BaseException) -> str:
    """Format an exception's traceback, or return the reason why the formatting fails."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as failure:
        return f"<no traceback: formatting it raised {type(failure).__name__}>"
