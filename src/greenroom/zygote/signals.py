"""Signals in the zygote and in a child."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

__all__ = ["Wakeup", "ignore_group_signals", "reset_all", "reset_in_child", "reset_in_forks"]

# Sent to a whole group by a terminal or by ``systemctl stop``, but the supervisor's to act upon.
_GROUP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


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


def ignore_group_signals() -> None:
    """Survive the signals that are meant for the supervisor.

    By a handler and not by ``SIG_IGN``: what is ignored stays ignored in every program that a job
    executes, so that it could never be terminated; a handler is reset by exec.
    """
    for signum in _GROUP_SIGNALS:
        signal.signal(signum, _nothing)


def reset_all() -> None:
    """Undo every handler that the app's imports have put up, and unblock every signal."""
    for signum in signal.valid_signals():
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reset_in_child() -> None:
    """Undo what only the zygote needs. The rest it did itself, once, so that no child has to."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def reset_in_forks() -> None:
    """Have what a session forks be a program as any other, which ``terminate()`` ends.

    The signals wait while it forks: one that came before the handlers are reset would be lost.
    """
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_reset_and_release)


class _Held(threading.local):
    mask: set[int] = set()  # noqa: RUF012  # of each thread that forks: the signals it had blocked before


_held = _Held()


def _hold() -> None:
    _held.mask = {*signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)}


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _reset_and_release() -> None:
    for signum in _GROUP_SIGNALS:
        if signal.getsignal(signum) is _nothing:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    _release()


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Nothing to do: that it interrupts a system call, or writes to the wake-up pipe, is enough."""
