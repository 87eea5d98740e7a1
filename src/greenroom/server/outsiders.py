"""Processes of this machine that no session has started: who asks is judged by what a process cannot change of itself.

A process is no outsider if one of these is true:

- It descends from a worker. A session's processes cannot leave the tree of their worker while it lives: session,
  zygote and supervisor are subreapers. Workers are known by their control sockets, whose owner the kernel names.
- It has more seccomp filters than this worker. Each session gets one behind walls, and no process loses a filter. So
  what is left of a worker that is gone is known, too. A program in a sandbox of its own is refused with them.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections.abc import Collection
from contextlib import closing, suppress
from typing import NamedTuple

from ..system import proc
from ..system.control_address import is_control_address

__all__ = ["Descent", "is_outsider", "workers_here"]


class _Process(NamedTuple):
    """Process that stays the same, though its number may be given again."""

    pid: int
    started: int


class Descent:
    """Processes that descend from some workers, and these workers, as one look finds them. Each is looked at once."""

    def __init__(self, workers: Collection[int]) -> None:
        self._known = dict.fromkeys(workers, True) | {0: False}  # a parent of 0 is outside of this pid namespace

    def is_inside(self, pid: int) -> bool:
        """Return whether a process is a worker or descends from one. Raises ``OSError`` if it has ended meanwhile."""
        line: list[int] = []
        while pid not in self._known:
            if pid in line:  # pids were given again meanwhile
                raise ProcessLookupError(pid)
            line.append(pid)
            pid = proc.stat(pid).ppid
        self._known.update(dict.fromkeys(line, self._known[pid]))
        return self._known[pid]


_NO_WORKER = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EPROTOTYPE})
"""Errors for an address at which no worker listens."""
_IS_LISTENING = 0x10000
"""Flag in ``/proc/net/unix`` (__SO_ACCEPTCON)."""
_LINE = re.compile(rb"[0-9a-f]+: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8}) [0-9A-F]{4} [0-9A-F]{2} +([0-9]+) @(.+)")
_CREDENTIALS = struct.Struct("3i")
_owners: dict[tuple[int, str], frozenset[_Process]] = {}
"""Processes that have a control socket open, by its inode and address. Such a worker is not asked again: one that
stands still accepts nothing, and would soon have too many that wait."""


def workers_here() -> frozenset[int]:
    """Return the pids of the workers of this machine, this one among them. May take milliseconds.

    Raises ``OSError``: sockets cannot be listed or made.
    """
    sockets = _control_sockets()
    for gone in _owners.keys() - sockets:
        _owners.pop(gone, None)
    unknown = sockets - _owners.keys()
    listeners = {address: _listener_at(address) for address in {address for _, address in unknown}}
    descent = Descent(_living())
    for inode, address in unknown:
        pid = listeners[address]
        if pid and _has_open(pid, inode, descent):
            _owners[inode, address] = _known({pid})
    silent = {inode: address for inode, address in unknown if listeners[address] is None}
    for inode, holders in _holders_of(silent.keys(), descent).items() if silent else ():
        _owners[inode, silent[inode]] = _known(holders)
    return _living() | {pid for pid in listeners.values() if pid}


def _living() -> frozenset[int]:
    """Return the pids of the workers that are known, and live."""
    owners = frozenset[_Process]().union(*_owners.values())
    return frozenset({os.getpid(), *(owner.pid for owner in owners if _process(owner.pid) == owner)})


def _has_open(pid: int, inode: int, descent: Descent) -> bool:
    """Return whether a process beside the known workers has a socket open. Anybody can add a line with any inode."""
    try:
        return not descent.is_inside(pid) and inode in proc.sockets(pid)
    except PermissionError:
        return True  # it is a worker of root with more capabilities: it is believed
    except OSError:
        return False  # it has ended


def _control_sockets() -> set[tuple[int, str]]:
    """Return the inodes and addresses of all control sockets.

    The kernel prints names as they are, with line ends. So a name can add lines to this list, but remove none.
    """
    # Not /proc/net, which a /proc of processes alone (subset=pid) does not have.
    with open("/proc/self/net/unix", "rb") as file:
        lines = [match for line in file.read().split(b"\n") if (match := _LINE.fullmatch(line))]
    listening = [(int(line[2]), f"\0{line[3].decode(errors='replace')}") for line in lines if _is_listening(line)]
    return {(inode, address) for inode, address in listening if is_control_address(address)}


def _is_listening(line: re.Match[bytes]) -> bool:
    return bool(int(line[1], 16) & _IS_LISTENING)


def is_outsider(pid: int, workers: frozenset[int]) -> bool:
    """Return whether no session has started a process. Raises ``OSError`` if it or an ancestor has ended meanwhile."""
    if proc.seccomp_filters(pid) > proc.seccomp_filters(os.getpid()):
        return False
    started: int | None = None
    while pid:  # a parent of 0 is outside of this pid namespace
        if pid in workers:
            return False
        known = proc.stat(pid)
        if started is not None and known.started > started:
            return False  # younger than its child: the parent has ended, and another process has got its number
        started, pid = known.started, known.ppid
    return True


def _listener_at(address: str) -> int | None:
    """Return the process that listens at an abstract address, as the kernel names it. The connection is not used.

    0 if nobody listens, or from another pid namespace; ``None`` if too many wait to be accepted. Whoever makes a socket
    that does not tell its owner hides no worker by it, and must not close the API to others.
    """
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)) as sock:
        try:
            sock.connect(address)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _NO_WORKER:
                return 0
            raise
        return int(_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0])


def _holders_of(inodes: Collection[int], descent: Descent) -> dict[int, set[int]]:
    """Return the processes that have these sockets open, by inode, of those that can be looked into.

    What descends from a worker that is known is not looked at: it can have thousands of files.
    """
    found: dict[int, set[int]] = {}
    for pid in proc.pids():
        with suppress(OSError):  # it has ended, or is of another user
            for inode in () if descent.is_inside(pid) else proc.sockets(pid).keys() & inodes:
                found.setdefault(inode, set()).add(pid)
    return found


def _known(pids: set[int]) -> frozenset[_Process]:
    """Return the processes that live. The owner of a socket may have died, and others may have it open."""
    return frozenset(process for process in map(_process, pids) if process is not None)


def _process(pid: int) -> _Process | None:
    try:
        return _Process(pid, proc.stat(pid).started)
    except OSError:
        return None
