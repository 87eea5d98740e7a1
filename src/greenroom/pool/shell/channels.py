"""Channels between the supervisor and a child, a zygote or the reaper. The far ends go to the other process."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from ...system import passed_fds
from ...system.heartbeat import HeartbeatReader

__all__ = ["Channels", "ReaperChannel", "ZygoteChannels"]

_unshared: set[int] = set()
"""Fds whose hang-up reports that the supervisor is gone, so that no fork of this process may keep them open."""


def not_in_forks(fd: int) -> None:
    """Close this fd in each fork of this process, such as a process that the user starts by ``multiprocessing``."""
    _unshared.add(fd)


def close_unshared(fd: int) -> None:
    _unshared.discard(fd)
    os.close(fd)


class _Ends:
    """Ends of channels, with a list of the fds that are still open."""

    def __init__(self) -> None:
        self._open: list[int] = []
        self._read_from = set[int]()
        """Sockets that read from processes of the app, which may send fds along."""

    def close(self) -> None:
        """Close all fds that are still open."""
        for fd in list(self._open):
            self._close(fd)

    def _socketpair(self, kind: int, *, takes_fds: bool = False) -> tuple[int, int]:
        near, far = socket.socketpair(socket.AF_UNIX, kind)
        if not takes_fds:
            passed_fds.refuse(near)
            self._read_from.add(near.fileno())
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
            if fd in self._read_from:
                self._read_from.remove(fd)
                passed_fds.close(fd)
            else:
                close_unshared(fd)


class ZygoteChannels(_Ends):
    """Channel, lifeline, output and log of a zygote. Raises ``OSError``; then no fd stays open.

    Pipes of ``Popen`` are not used: before Python 3.12, ``Popen`` leaks them when it runs out of fds.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            self.channel, self.far_channel = self._socketpair(socket.SOCK_SEQPACKET, takes_fds=True)  # pidfds
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


class ReaperChannel(_Ends):
    """Pipe whose hang-up reports to the reaper that the supervisor is gone. Raises ``OSError``."""

    def __init__(self) -> None:
        super().__init__()
        self.far, near = self._pipe()  # both stay open: another reaper replaces a lost one
        not_in_forks(near)


class Channels(_Ends):
    """Control and log sockets, stdout and stderr pipes, lifeline and heartbeat page of one child.

    Raises ``OSError`` if too few fds are left; then no fd stays open.
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
        """Close the child's ends, which were sent. While a copy is open here, the child's death causes no hang-up."""
        for fd in self.child_ends:
            self._close(fd)
        self.child_ends = ()

    def cut_lifeline(self) -> None:
        """Have the kernel kill each process that has armed the other end, or will arm it."""
        self._close(self._lifeline)


def _let_go_in_fork() -> None:
    # Replace the fds, do not close them: a Python object in the fork may still close these numbers later.
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in _unshared:
        with suppress(OSError):
            os.dup2(null, fd, inheritable=False)
    _unshared.clear()
    os.close(null)


os.register_at_fork(after_in_child=_let_go_in_fork)
