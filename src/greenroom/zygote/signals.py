"""Signals in the zygote and in a child: those that the group gets, and those that a session sends itself.

The signals by which a terminal or a service manager ends a program may reach every process of a worker
(``KillMode=control-group``), but it is the supervisor that acts upon them. A session that sends itself one, or a
library in it that ends its process by SIGTERM, is to end. Python tells a handler no sender. So a child looks whether
the zygote, or the supervisor of a worker, has had the signal at about the same time: then it is the group's.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ..system.heartbeat import HeartbeatPage

__all__ = [
    "OwnSignals",
    "Wakeup",
    "Witness",
    "handle_group_signals",
    "kept_in_fork",
    "react_by",
    "reset_all",
    "reset_in_child",
    "reset_in_forks",
]

_GROUP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

_SAME_TIME = 1.0
"""Seconds within which a signal to the whole group reaches all of it."""
_LOOK_AGAIN = 0.005
_TIME = struct.Struct("=d")


class Wakeup:
    """A pipe that becomes readable when a child has died or stopped."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def fds(self) -> list[int]:
        return [self.fd, self._write_fd]

    def install(self) -> None:
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    def clear(self) -> None:
        with suppress(BlockingIOError):  # empty now
            while os.read(self.fd, 4096):
                continue


class Witness:
    """The zygote, which tells its children when a signal of the group's has reached it, in memory that all share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._pid = os.getpid()

    def note(self, signum: int) -> None:
        if os.getpid() == self._pid:  # and not a fork that has no reaction of its own yet, or a service
            _TIME.pack_into(self._memory, 0, time.monotonic())

    def last(self) -> float | None:
        """Return when it was, on the monotonic clock; ``None`` if the zygote is lost."""
        return float(_TIME.unpack_from(self._memory)[0]) if os.getppid() == self._pid else None


class OwnSignals:
    """A child's reaction: what is the group's is let pass, and what is its own ends it.

    ``on_interrupt`` is what SIGINT does.
    """

    def __init__(self, page: HeartbeatPage, witness: Witness | None, on_interrupt: Callable[[], object]) -> None:
        self._page = page
        self._witness = witness
        self._on_interrupt = on_interrupt
        self._passed_at: dict[int, float] = {}

    def heard(self, signum: int) -> None:
        # The app's code stands still here: what it would go on to do after the signal may be wrong.
        heard_at = time.monotonic()
        # Python calls this when the main thread is back from native code. The signal came after the last turn of the
        # loop, and after the last one of its number.
        since = min(heard_at, max(self._page.loop_beat_at, self._passed_at.get(signum, 0.0)))
        for _ in range(round(_SAME_TIME / _LOOK_AGAIN)):
            if since - _SAME_TIME < self._last_of_group() < heard_at + _SAME_TIME:
                self._passed_at[signum] = heard_at
                return
            time.sleep(_LOOK_AGAIN)
        if signum == signal.SIGINT:
            self._on_interrupt()
        else:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    def _last_of_group(self) -> float:
        witnessed = self._witness.last() if self._witness is not None else None
        return max(witnessed or 0.0, self._page.group_signal_at())


_react: Callable[[int], object] = lambda signum: None  # noqa: E731


def react_by(react: Callable[[int], object]) -> None:
    """Have this process, whose handlers are in place, react in another way."""
    global _react
    _react = react


def handle_group_signals(react: Callable[[int], object]) -> None:
    """React to the signals that may be meant for the supervisor.

    Never by ``SIG_IGN``: what is ignored stays ignored in every program that a job executes, so that it could never be
    terminated; a handler is reset by exec.
    """
    react_by(react)
    for signum in _GROUP_SIGNALS:
        signal.signal(signum, _on_group_signal)


def _on_group_signal(signum: int, frame: FrameType | None) -> None:
    _react(signum)


def reset_all() -> None:
    """Undo every handler that the app's imports have put up, and unblock every signal.

    Their timers are stopped first: a sampling profiler's would end this process by default.
    """
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    for signum in signal.valid_signals():
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reset_in_child() -> None:
    """Undo what only the zygote needs. The rest it did itself, once, so that no child has to."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def reset_in_forks() -> None:
    """Have what the app forks be a program as any other, which ``terminate()`` ends.

    The signals wait while it forks: one that came before the handlers are reset would be lost.
    """
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_reset_and_release)


@contextmanager
def kept_in_fork() -> Iterator[None]:
    """Within this, the zygote forks a process of Greenroom's own."""
    global _keeps
    _keeps = True
    try:
        yield
    finally:
        _keeps = False


_keeps = False


class _Held(threading.local):
    mask: set[int] = set()  # noqa: RUF012  # of each thread that forks: the signals it had blocked before


_held = _Held()


def _hold() -> None:
    if not _keeps:
        _held.mask = {*signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)}


def _release() -> None:
    if not _keeps:
        signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _reset_and_release() -> None:
    if _keeps:
        return
    for signum in _GROUP_SIGNALS:
        if signal.getsignal(signum) is _on_group_signal:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    _release()


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Nothing to do: that it interrupts a system call, or writes to the wake-up pipe, is enough."""
