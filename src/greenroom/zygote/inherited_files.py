"""What the app opened while it was loaded, and what a process gets in its place.

A fork shares it: a connection gives one session the answer that another one asked for, and a file has one offset for
all. So each process gets its own: of a connection a closed one, upon which each client opens another; of a socket for
messages that is connected, and of a file that is only read, a new one like it. The rest is named in a warning.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from . import shared_objects

__all__ = ["InheritedFiles", "open_fds"]

_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_STREAMS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
_MEMORY = ("/dev/shm/", "/memfd:")
"""Files that are there to be shared, and are mapped rather than read."""
_WRITTEN = "open it in prewarm instead, by a name of each process's own; or to append, as a log"
_SHARED = "which every process shares with every other"


def open_fds() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if _is_open(int(name))}


def _is_open(fd: int) -> bool:
    """Not the fd of the listing itself, which is closed by now, and whose number the next one gets."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class _Renewal(NamedTuple):
    fd: int
    identity: tuple[int, int]
    """Device and inode: its number may be another file's by the time of a fork."""
    renewed: Callable[[int], int]


class InheritedFiles:
    """The fds that were opened since a census of them; judged once, in the zygote."""

    def __init__(self, before: set[int]) -> None:
        _fill_standard_streams()
        self.warnings: list[str] = []
        self._renewals: list[_Renewal] = []
        of_loops = shared_objects.fds_of_loops()
        if of_loops:
            self.warnings.append(shared_objects.LOOP_WARNING)
        for fd in sorted(open_fds() - before - of_loops):
            with suppress(OSError):  # closed since
                self._judge(fd, os.fstat(fd), os.readlink(f"/proc/self/fd/{fd}"))
        self.warnings += shared_objects.warnings()

    def renew(self) -> None:
        """In a process: put something of its own in the place of each that is still there."""
        shared_objects.renew()
        has_connections = False
        for fd, identity, renewed in self._renewals:
            with suppress(OSError):  # closed by now, or it cannot be opened again: then it stays as it is
                if _identity(os.fstat(fd)) == identity:
                    new = renewed(fd)
                    os.dup2(new, fd, inheritable=os.get_inheritable(fd))
                    os.close(new)
                    has_connections |= renewed is _closed_connection
        if has_connections:
            _connect_log_handlers()

    def _judge(self, fd: int, found: os.stat_result, target: str) -> None:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if flags & os.O_PATH or target.startswith(_MEMORY):
            return
        if stat.S_ISSOCK(found.st_mode):
            self._judge_socket(fd, found, target)
        elif stat.S_ISREG(found.st_mode):
            if flags & os.O_ACCMODE == os.O_RDONLY:
                self._renewals.append(_Renewal(fd, _identity(found), _opened_anew))
            elif not flags & os.O_APPEND:  # lines that are appended do not mix
                self._warn(fd, target, "which all processes write by one offset, and lock as one", _WRITTEN)
        elif stat.S_ISFIFO(found.st_mode) or target.startswith("anon_inode:[event"):
            self._warn(fd, target, _SHARED)

    def _judge_socket(self, fd: int, found: os.stat_result, target: str) -> None:
        with socket.socket(fileno=os.dup(fd)) as copy:
            peer = _peer(copy)
            listens = copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            # A pair has no name: an event loop wakes itself by one. A TCP connection that was lost has none, either.
            is_own = not peer and (copy.family == socket.AF_UNIX or copy.type not in _STREAMS)
            if copy.family not in _FAMILIES or listens or is_own:
                self._warn(fd, target, _SHARED)
            elif copy.type in _STREAMS:
                self._renewals.append(_Renewal(fd, _identity(found), _closed_connection))
                self._warn(fd, target + (f" to {_told(peer)}" if peer else ""), "which each process finds closed")
            elif copy.type == socket.SOCK_DGRAM:
                self._renewals.append(_Renewal(fd, _identity(found), _other_socket))
            else:
                self._warn(fd, target, _SHARED)

    def _warn(self, fd: int, what: str, why: str, remedy: str = "open it in prewarm instead") -> None:
        self.warnings.append(f"preload left fd {fd} open ({what}), {why}: {remedy}")


def _fill_standard_streams() -> None:
    """Put something in the place of those that the app has closed: what a child is given would take their numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _peer(sock: socket.socket) -> Any:
    """The address that it is connected to, if it is."""
    try:
        return sock.getpeername()
    except OSError:
        return None


def _told(address: Any) -> str:
    if isinstance(address, bytes):  # of a Unix socket, with no file
        return "@" + os.fsdecode(address[1:])
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


def _closed_connection(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as present:
        new = _closed_like(present.family, present.type, present.proto)
    os.set_blocking(new.fileno(), os.get_blocking(fd))
    return new.detach()


def _closed_like(family: int, kind: int, protocol: int) -> socket.socket:
    """Return one at its end. Of the same family if it can be: a library takes the form of its addresses for granted."""
    if family != socket.AF_UNIX:
        with suppress(OSError):  # this family is not to be had any more
            new = socket.socket(family, kind, protocol)
            with suppress(OSError):  # it is not connected; but from now on it is read to its end, and not written
                new.shutdown(socket.SHUT_RDWR)
            return new
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def _other_socket(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as present, socket.socket(present.family, present.type, present.proto) as new:
        new.connect(present.getpeername())
        os.set_blocking(new.fileno(), os.get_blocking(fd))
        return new.detach()


def _opened_anew(fd: int) -> int:
    new = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    os.lseek(new, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
    return new


def _connect_log_handlers() -> None:
    """Have log handlers that send by TCP open a connection of their own: theirs is closed, and they would not."""
    handlers: Any = sys.modules.get("logging.handlers")
    for handler in shared_objects.handlers() if handlers is not None else ():
        with suppress(OSError, AttributeError):
            if isinstance(handler, handlers.SocketHandler):
                handler.sock = None  # it connects with its next record
            elif isinstance(handler, handlers.SysLogHandler) and handler.socktype == socket.SOCK_STREAM:
                handler.createSocket()
