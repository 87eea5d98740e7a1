"""Files that the app opened while it was loaded, and their replacement in each child.

A fork shares open files. A shared connection can give one job the answer to the request of another job. A shared file
has one offset for all processes. So each child replaces such files:

- A connection becomes a closed connection, and its client then opens a new one.
- A connected datagram socket becomes a new one with the same peer.
- A file that is only read is opened again, at the same offset.

The zygote logs a warning about closed connections, and about shared files without a replacement.
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
"""Beginnings of the paths of files that are meant to be shared, and that are mapped rather than read."""
_WRITTEN = "open it in prewarm instead, with another name in each process, or open it to append, as a log"
_SHARED = "which all processes share"


def open_fds() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if _is_open(int(name))}


def _is_open(fd: int) -> bool:
    """Return whether an fd is open. The fd of the listing itself is closed by now, and its number is free."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class _Renewal(NamedTuple):
    fd: int
    identity: tuple[int, int]
    """Device and inode. At the time of a fork, the fd's number may belong to another file."""
    renewed: Callable[[int], int]


class InheritedFiles:
    """Files that were opened after the listing ``before`` of open fds. The zygote judges each file once."""

    def __init__(self, before: set[int]) -> None:
        _fill_standard_streams()
        self.warnings: list[str] = []
        self._renewals: list[_Renewal] = []
        of_loops = shared_objects.fds_of_loops()
        if of_loops:
            self.warnings.append(shared_objects.LOOP_WARNING)
        for fd in sorted(open_fds() - before - of_loops):
            with suppress(OSError):  # the fd is closed by now
                self._judge(fd, os.fstat(fd), os.readlink(f"/proc/self/fd/{fd}"))
        self.warnings += shared_objects.warnings()

    def renew(self) -> None:
        """Replace, in a child, each file that is still open."""
        shared_objects.renew()
        has_connections = False
        for fd, identity, renewed in self._renewals:
            with suppress(OSError):  # closed by now; or it cannot be opened again, and stays shared
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
            elif not flags & os.O_APPEND:  # appended lines do not mix
                self._warn(fd, target, "which all processes write with a shared offset and shared locks", _WRITTEN)
        elif stat.S_ISFIFO(found.st_mode) or target.startswith("anon_inode:[event"):
            self._warn(fd, target, _SHARED)

    def _judge_socket(self, fd: int, found: os.stat_result, target: str) -> None:
        with socket.socket(fileno=os.dup(fd)) as copy:
            peer = _peer(copy)
            listens = copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            # The peer of a socket pair has no name. An event loop wakes itself by such a pair. A lost TCP connection
            # has no peer either, so its type decides.
            is_own = not peer and (copy.family == socket.AF_UNIX or copy.type not in _STREAMS)
            if copy.family not in _FAMILIES or listens or is_own:
                self._warn(fd, target, _SHARED)
            elif copy.type in _STREAMS:
                self._renewals.append(_Renewal(fd, _identity(found), _closed_connection))
                target += f" to {_address_text(peer)}" if peer else ""
                self._warn(fd, target, "which is closed in each process")
            elif copy.type == socket.SOCK_DGRAM:
                self._renewals.append(_Renewal(fd, _identity(found), _other_socket))
            else:
                self._warn(fd, target, _SHARED)

    def _warn(self, fd: int, what: str, why: str, remedy: str = "open it in prewarm instead") -> None:
        self.warnings.append(f"preload left fd {fd} open ({what}), {why}: {remedy}")


def _fill_standard_streams() -> None:
    """Open ``/dev/null`` in the place of standard streams that the app has closed.

    Otherwise fds for a child would get their numbers.
    """
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _peer(sock: socket.socket) -> Any:
    """Return the address of a socket's peer; ``None`` if the socket is not connected."""
    try:
        return sock.getpeername()
    except OSError:
        return None


def _address_text(address: Any) -> str:
    if isinstance(address, bytes):  # a Unix address in the abstract namespace
        return "@" + os.fsdecode(address[1:])
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


def _closed_connection(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as present:
        new = _closed_like(present.family, present.type, present.proto)
    os.set_blocking(new.fileno(), os.get_blocking(fd))
    return new.detach()


def _closed_like(family: int, kind: int, protocol: int) -> socket.socket:
    """Return a connection at its end.

    The new socket has the same family if possible, since libraries rely on the form of its addresses.
    """
    if family != socket.AF_UNIX:
        with suppress(OSError):  # this family is not available any more
            new = socket.socket(family, kind, protocol)
            with suppress(OSError):  # raises ENOTCONN; but from now on, a read returns the end, and a write fails
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
    """Have log handlers that send by TCP open new connections. Otherwise each handler would keep a closed one."""
    handlers: Any = sys.modules.get("logging.handlers")
    for handler in shared_objects.handlers() if handlers is not None else ():
        with suppress(OSError, AttributeError):
            if isinstance(handler, handlers.SocketHandler):
                handler.sock = None  # the handler connects at its next record
            elif isinstance(handler, handlers.SysLogHandler) and handler.socktype == socket.SOCK_STREAM:
                handler.createSocket()
