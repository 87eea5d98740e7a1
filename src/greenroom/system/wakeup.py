"""Signal handlers of asyncio that survive more signals than an event loop reads.

``loop.add_signal_handler`` uses ``signal.set_wakeup_fd``: CPython writes each signal's number into a socket that the
loop reads. By default a write into a full socket schedules a warning, inside C's signal handler. For that,
``_PyEval_AddPendingCall`` takes a lock. A second signal that arrives meanwhile waits for the lock in the same thread,
for ever. Some 300 SIGCHLD in one turn of the loop fill the socket. Without the warning nothing is lost. Any byte
wakes the loop, and Python calls a handler once for any number of pending signals of a kind.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

__all__ = ["harden_loop", "harden_program"]

_MARK = "_greenroom_hardened"


def harden_program() -> None:
    """Leave out the warning in every event loop of this process and of its forks, the user's loops included.

    Zygotes and children call this, since any library there may make a loop. A caller of ``signal.set_wakeup_fd`` that
    asks for the warning gets it.
    """
    set_wakeup_fd = signal.set_wakeup_fd

    def without_warning(fd: int, *, warn_on_full_buffer: bool = False) -> int:
        return set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)

    signal.set_wakeup_fd = without_warning


def harden_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Leave out the warning for the signal handlers of one loop, present and future.

    The supervisor calls this, since it may be the user's own program. Does nothing outside the main thread, where a
    loop can have no signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _stop_warning(loop)
    if not hasattr(loop, _MARK):
        add = loop.add_signal_handler

        def add_signal_handler(sig: int, callback: Any, *args: Any) -> None:
            add(sig, callback, *args)
            _stop_warning(loop)

        loop.add_signal_handler = add_signal_handler  # type: ignore[assignment, method-assign]
        setattr(loop, _MARK, True)


def _stop_warning(loop: Any) -> None:
    """Set the loop's wake-up fd again, without the warning.

    One call must do this. Between two calls no fd is set: a signal would not wake the loop, and asyncio would never
    call the handler. So this reads two attributes of asyncio's own loops. Any other loop gets two calls.
    """
    if hasattr(loop, "_csock") and hasattr(loop, "_signal_handlers"):
        if loop._signal_handlers:
            signal.set_wakeup_fd(loop._csock.fileno(), warn_on_full_buffer=False)
        return
    fd = signal.set_wakeup_fd(-1)
    if fd != -1:
        signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
