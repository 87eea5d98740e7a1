"""What can go wrong, as types. A message says what happened, to which process or job, and what to do."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from .texts import clean, cut_end, cut_start

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
    "ServiceError",
]


class GreenroomError(Exception):
    """The base of every error that Greenroom raises on purpose."""


class OptionError(GreenroomError, ValueError):
    """An option is unknown, or its value makes no sense. Nothing was started or changed."""


def fresh(error: GreenroomError) -> GreenroomError:
    """Return a copy of an error, to be raised.

    A raised exception refers to the frames that it passes through, and those to whatever kept the error for later: a
    cycle. The copy is referred to by nobody.
    """
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    return copy


class PayloadError(GreenroomError, ValueError):
    """Metadata or a result is not plain data (what JSON can hold, or bytes), or is too large."""


class AppLoadError(GreenroomError):
    """The app could not be imported, its preload failed, or it left the zygote unfit to fork."""


class PrewarmError(GreenroomError):
    """Processes could be forked, but none of them became warm."""


class LaunchError(GreenroomError):
    """A job was accepted but did not start; no process runs it, and none will."""


class PoolClosed(GreenroomError):
    """The pool is closed, or has not been started."""


class ServiceError(GreenroomError):
    """A service of the app has not answered a call, or there is no such service.

    ``reason`` is one of ``unknown`` (there is no service of this name), ``not_ready`` (it loads, or is started again),
    ``not_loaded`` (its loading raised), ``busy`` (it works on other calls), ``timeout`` (it works on this call),
    ``raised`` and ``died``. With ``raised`` and ``not_loaded``, ``error`` is what was raised. With ``timeout``,
    ``raised`` and ``died`` the call was begun, and may have had effects; with the others it was not.
    """

    def __init__(self, message: str, *, reason: str, error: ErrorInfo | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.error = error


class NoCapacity(GreenroomError):
    """A session was turned down: at once, or when the deadline had passed that it could wait for a process.

    ``reason`` is one of ``full``, ``warming``, ``draining`` and ``breaker_open``; ``retry_after``
    is an estimate in seconds of when trying again makes sense.
    """

    def __init__(self, message: str, *, reason: str, retry_after: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


ERROR_CHARACTERS = 32_000
"""The most characters of an exception's message, and of its traceback, beside the mark of a cut."""
_LONGEST_NAME, _MARK = 200, 64


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception as text: what crosses a process boundary is never the object itself."""

    type: str
    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException, *, limit: int = ERROR_CHARACTERS) -> ErrorInfo:
        """Describe an exception; one whose own ``__str__`` fails is described all the same.

        Message and traceback are cut to ``limit`` characters, and say so.
        """
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        try:
            message = str(error)
        except BaseException as failure:  # even a SystemExit: this is only a description of the other one
            message = f"<no message: its __str__ raised {type(failure).__name__}>"
        lines = cut_start(traceback_of(error), limit)
        return cls(clean(cut_end(name, _LONGEST_NAME)), clean(cut_end(message, limit)), clean(lines))

    def bounded(self) -> ErrorInfo:
        """Return it as :meth:`of` makes it at most: another process may have sent any text, of any length."""
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


def traceback_of(error: BaseException) -> str:
    """Format an exception's traceback, or say why that fails."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as failure:
        return f"<no traceback: formatting it raised {type(failure).__name__}>"
