"""The channels between the supervisor and one child: made here, the far ends passed on at the fork."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from ..system.heartbeat import HeartbeatReader

__all__ = ["Channels", "ZygoteChannels"]

_unshared: set[int] = set()
"""Fds whose closing says that the supervisor is gone: no copy of it may keep them open."""


def not_in_forks(fd: int) -> None:
    """Close this fd in every process that is forked off this one (the user's own, by multiprocessing say)."""
    _unshared.add(fd)


def close_unshared(fd: int) -> None:
    _unshared.discard(fd)
    os.close(fd)


class _Ends:
    """Fds, and whether they are open still."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def close(self) -> None:
        """Close all that is still open."""
        for fd in list(self._open):
            self._close(fd)

    def _socketpair(self, kind: int) -> tuple[int, int]:
        near, far = socket.socketpair(socket.AF_UNIX, kind)
        near.setblocking(False)
        pair = near.detach(), far.detach()
        self._open += pair
        return pair

    def _pipe(self) -> tuple[int, int]:
        pair = os.pipe2(os.O_CLOEXEC)
        self._open += pair
        return pair

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            close_unshared(fd)


class ZygoteChannels(_Ends):
    """The channel, the lifeline, the output and the log of a zygote. Raises ``OSError``, and keeps none then.

    Popen's own pipes would not do: before Python 3.12 it leaks them when it runs out of fds.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            self.channel, self.far_channel = self._socketpair(socket.SOCK_SEQPACKET)
            self.far_lifeline, lifeline = self._pipe()
            self.stdout, self.far_stdout = self._pipe()
            self.stderr, self.far_stderr = self._pipe()
            self.log, self.far_log = self._socketpair(socket.SOCK_SEQPACKET)
        except OSError:
            self.close()
            raise
        not_in_forks(self.channel)
        not_in_forks(lifeline)
        os.set_blocking(self.stdout, False)
        os.set_blocking(self.stderr, False)

    def close_far_ends(self) -> None:
        for fd in (self.far_channel, self.far_lifeline, self.far_stdout, self.far_stderr, self.far_log):
            self._close(fd)

    def close_channel(self) -> None:
        self._close(self.channel)


class Channels(_Ends):
    """Control and log sockets, stdout and stderr pipes, lifeline and heartbeat page of one child.

    Raises ``OSError`` if this process has no fds left for them; then none is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            self.control, control = self._socketpair(socket.SOCK_STREAM)
            self.log, log = self._socketpair(socket.SOCK_SEQPACKET)
            self.stdout, stdout = self._pipe()
            self.stderr, stderr = self._pipe()
            lifeline, self._lifeline = self._pipe()
            self.heartbeat = HeartbeatReader()
        except OSError:
            super().close()
            raise
        not_in_forks(self._lifeline)
        os.set_blocking(self.stdout, False)
        os.set_blocking(self.stderr, False)
        self._open.append(self.heartbeat.fd)
        self.child_ends: tuple[int, ...] = (control, log, stdout, stderr, lifeline, self.heartbeat.fd)

    def close(self) -> None:
        super().close()
        self.heartbeat.close()

    def close_child_ends(self) -> None:
        """After they were sent: as long as one is open here, the child's end is not noticed."""
        for fd in self.child_ends:
            self._close(fd)
        self.child_ends = ()

    def cut_lifeline(self) -> None:
        """Have the kernel kill whatever has armed, or will arm, the other end."""
        self._close(self._lifeline)


def _let_go_in_fork() -> None:
    # Replaced and not closed: some Python object in the fork may still close that number later.
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in _unshared:
        with suppress(OSError):
            os.dup2(null, fd, inheritable=False)
    _unshared.clear()
    os.close(null)


os.register_at_fork(after_in_child=_let_go_in_fork)
