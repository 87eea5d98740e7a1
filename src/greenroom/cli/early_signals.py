"""Signal handlers for the time until the worker's event loop has its own.

The kernel delivers a signal to PID 1 only if PID 1 has a handler for the signal (pid_namespaces(7)). Without these
handlers, a container that is stopped during its imports would go on to start. Such a container would be killed at the
end of its grace period.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

from ..command_exit_codes import ExitCode

__all__ = ["install"]


def install() -> None:
    """Install handlers for SIGTERM and SIGHUP, and unblock all signals.

    SIGTERM ends the process at once, since no job is accepted yet. SIGHUP does nothing, since the code is loaded later
    anyway. A handler is needed, since child processes would inherit ``SIG_IGN``. SIGINT keeps Python's handler.

    The signal mask is inherited, so the parent process may have blocked signals. A worker that never gets SIGTERM would
    be killed together with its jobs.
    """
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _nothing)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(ExitCode.OK)


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Do nothing."""
