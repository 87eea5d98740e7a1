"""Exit codes of commands, and their meaning."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """Exit codes. If a second signal ends a worker without a drain, the code is 128 + the number of the signal."""

    OK = 0
    """Success. For a worker: end after a signal and a drain."""
    NEGATIVE = 1
    """Negative result of a command: a failed job, an app with a problem, a refused request.
    For a worker: a source of jobs did not open in time."""
    USAGE = 2
    """Invalid argument, flag, environment variable or settings file. Nothing was started."""
    APP = 3
    """App that did not load."""
    LISTEN = 4
    """Address on which the worker could not listen."""
    UNREACHABLE = 5
    """Address at which no worker answered."""
    UNAUTHORIZED = 6
    """Missing token, or token that the worker did not accept."""
    SIGNALLED = 128
    """Base of further codes: 128 + the number of the signal that ended the work."""
    INTERRUPTED = 130
    """End of a command by Ctrl-C. A worker has other codes."""
