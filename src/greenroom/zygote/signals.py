"""Signals in the zygote and in a child: those to the whole group, and those that a job sends to its own process.

A terminal or a service manager ends a program by signals. Such a signal may reach every process of a worker
(``KillMode=control-group``), but only the supervisor acts upon it. A job, or a library in it, may also send such a
signal to its own process. Then the process must end.

Python does not give the sender to a handler. So a child checks whether the zygote, or the supervisor of a worker, got
the signal too. If one of them got it at about the same time, the signal was for the group.
"""

from __future__ import annotations

import _thread
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ..system.heartbeat import HeartbeatPage
from ..system.one_writer_page import OneWriterPage

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
"""Seconds within which a signal to the whole group reaches all its processes."""
_LOOK_AGAIN = 0.005
_TIME = struct.Struct("=d")


class Wakeup:
    """Pipe that becomes readable when a child has died or stopped."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def fds(self) -> list[int]:
        return [self.fd, self._write_fd]

    def install(self) -> None:
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    def clear(self) -> None:
        with suppress(BlockingIOError):  # the pipe is empty
            while os.read(self.fd, 4096):
                continue


class Witness:
    """Record of the zygote's last group signal, in memory that its children read, and cannot change."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._page: OneWriterPage | None = None
        try:
            self._page = OneWriterPage()
        except OSError as error:  # such as a limit on the size of files
            print(f"greenroom: jobs cannot tell signals to the whole group from their own: {error}", file=sys.stderr)

    def note(self, signum: int) -> None:
        # Not a service, nor a child that has no reaction of its own yet.
        if self._page is not None and os.getpid() == self._pid:
            self._page.write(_TIME.pack(time.monotonic()))

    def last(self) -> float | None:
        """Return the time of the last signal, on the monotonic clock.

        The time is 0 if no signal is known, and ``None`` if the zygote is lost.
        """
        if self.is_lost:
            return None
        return 0.0 if self._page is None else float(_TIME.unpack(self._page.read(_TIME.size))[0])

    @property
    def is_lost(self) -> bool:
        return os.getppid() != self._pid


class OwnSignals:
    """Reaction of a child: a signal to the group is ignored, and a signal to the child itself ends it.

    ``on_interrupt`` is the reaction to SIGINT.
    """

    def __init__(self, page: HeartbeatPage, witness: Witness | None, on_interrupt: Callable[[], object]) -> None:
        self._page = page
        self._witness = witness
        self._on_interrupt = on_interrupt
        self._passed_at: dict[int, float] = {}
        self._hangup_at: float | None = None

    def heard(self, signum: int) -> None:
        # The app's code must not run on here: it may do wrong after the signal. So this sleeps instead of returning.
        heard_at = time.monotonic()
        if self._is_kernels(signum, heard_at):
            return
        # Python calls a handler only after the main thread returns from native code. So the signal may have come
        # earlier, but after the last beat of the loop, and after the last signal of this number.
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

    def _is_kernels(self, signum: int, heard_at: float) -> bool:
        """Return whether to ignore a SIGHUP, because the kernel has sent it, or because the signal is sent again later.

        When the zygote is lost, no process of its session can continue a stopped process in a child's group. Then the
        kernel sends SIGHUP and SIGCONT to the whole group (setpgid(2), "orphaned process group").
        """
        if signum != signal.SIGHUP or self._witness is None or not self._witness.is_lost:
            return False
        first, self._hangup_at = self._hangup_at, None
        if first is None:
            # Of two pending signals, Python handles SIGHUP before SIGCONT, and never one handler within the other. So
            # this cannot know yet whether a SIGCONT has come.
            self._hangup_at = heard_at
            _thread.start_new_thread(_send_again, (signum,))  # the interrupted code may hold locks of threading
            return True
        return _continued_at > first - _SAME_TIME

    def _last_of_group(self) -> float:
        witnessed = self._witness.last() if self._witness is not None else None
        return max(witnessed or 0.0, self._page.group_signal_at())


def _send_again(signum: int) -> None:
    time.sleep(_LOOK_AGAIN)
    os.kill(os.getpid(), signum)


_react: Callable[[int], object] = lambda signum: None  # noqa: E731
_continued_at = 0.0
"""Time of the last SIGCONT to this process, on the monotonic clock; 0 if there was none."""


def react_by(react: Callable[[int], object]) -> None:
    """Replace the reaction of this process, whose handlers are installed already."""
    global _react
    _react = react


def handle_group_signals(react: Callable[[int], object]) -> None:
    """React to the signals that may be meant for the supervisor.

    ``SIG_IGN`` is not used for this: an ignored signal stays ignored in every program that a job executes, and such a
    program could not be terminated. A handler is reset by exec.
    """
    react_by(react)
    for signum in _GROUP_SIGNALS:
        signal.signal(signum, _on_group_signal)
    signal.signal(signal.SIGCONT, _on_continue)
    signal.siginterrupt(signal.SIGCONT, False)  # so that SIGCONT interrupts no system call, as without a handler


def _on_continue(signum: int, frame: FrameType | None) -> None:
    global _continued_at
    _continued_at = time.monotonic()


def _on_group_signal(signum: int, frame: FrameType | None) -> None:
    _react(signum)


def reset_all() -> None:
    """Undo all signal handlers that the app's imports have installed, and unblock all signals.

    Timers are stopped first: otherwise a sampling profiler's timer signal would end this process by its default action.
    """
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    for signum in signal.valid_signals():
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reset_in_child() -> None:
    """Undo the signal set-up that only the zygote needs. The zygote resets all else, once for all children."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def reset_in_forks() -> None:
    """Give processes that the app forks the reactions of any other program, so that ``terminate()`` ends them.

    Signals are blocked during the fork: a signal before the reset of the handlers would be lost.
    """
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_reset_and_release)


@contextmanager
def kept_in_fork() -> Iterator[None]:
    """Keep the handlers in forks within this context. The zygote forks Greenroom's own processes there."""
    global _keeps
    _keeps = True
    try:
        yield
    finally:
        _keeps = False


_keeps = False


class _Held(threading.local):
    mask: set[int] = set()  # noqa: RUF012  # the signals that the forking thread had blocked before


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
    """Do nothing: the signal interrupts a system call, or writes to the wake-up pipe, and that is enough."""
