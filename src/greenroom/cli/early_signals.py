"""Signals until the worker has handlers of its own, from its event loop.

To PID 1 the kernel delivers no signal that has no handler: a container that is stopped while its worker is
still importing would go on to start, and be killed when its grace period is over.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

from ..exit_codes import ExitCode

__all__ = ["install"]


def install() -> None:
    """SIGTERM ends the process at once, since nothing was accepted yet. SIGHUP: what is loaded later is new anyway.

    SIGINT has Python's handler. Signals that whoever started it has blocked are unblocked: the mask is inherited, and a
    worker that hears no SIGTERM has its calls cut. By handlers and not by ``SIG_IGN``, which would be inherited.
    """
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _nothing)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(ExitCode.OK)


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Nothing to do."""
