"""With which code a command ends, and what that says."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """The codes. A worker that a second signal ended without a drain exits with 128 + the signal's number."""

    OK = 0
    """Done; or, of a worker: ended by a signal, after a drain."""
    NEGATIVE = 1
    """The command did its work, and the answer is no: a job that failed, an app with a finding, a refused request.
    Of a worker: a source of sessions did not open in time."""
    USAGE = 2
    """An argument, a flag, an environment variable or the settings file was not understood. Nothing was started."""
    APP = 3
    """The app did not load."""
    LISTEN = 4
    """The address could not be listened on."""
    UNREACHABLE = 5
    """No worker answered at that address."""
    UNAUTHORIZED = 6
    """The worker did not accept the token, or there was none."""
    SIGNALLED = 128
    """Plus the number of the signal that ended the work."""
    INTERRUPTED = 130
    """Ctrl-C ended a command that is no worker."""
