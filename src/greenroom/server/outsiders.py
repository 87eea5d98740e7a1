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
from contextlib import closing, suppress
from typing import NamedTuple

from ..system import proc
from ..system.control_address import is_control_address

__all__ = ["is_outsider", "workers_here"]


class _Process(NamedTuple):
    """Process that stays the same, though its number may be given again."""

    pid: int
    started: int


_NO_WORKER = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EPROTOTYPE})
"""Errors for an address at which no worker listens."""
_IS_LISTENING = 0x10000
"""Flag in ``/proc/net/unix`` (__SO_ACCEPTCON)."""
_LINE = re.compile(rb"[0-9a-f]+: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8}) [0-9A-F]{4} [0-9A-F]{2} +([0-9]+) @(.+)")
_CREDENTIALS = struct.Struct("3i")
_owners: dict[tuple[int, str], frozenset[_Process]] = {}
"""Processes that listen at control sockets, by inode and address. Each worker is asked only once: one that stands still
accepts nothing, and would soon have too many that wait. Anybody can name the inode of a worker with another address."""


def workers_here() -> frozenset[int]:
    """Return the pids of the workers of this machine, this one among them. May take milliseconds.

    Raises ``OSError``: sockets cannot be listed or made.
    """
    sockets = _control_sockets()
    for gone in _owners.keys() - sockets:
        _owners.pop(gone, None)
    found = set[_Process]()
    for each in sockets:
        owners = _owners.get(each) or _owners_of(*each)
        if owners:  # else it is asked again, when it may answer
            _owners[each] = owners
        found |= owners
    return frozenset({os.getpid(), *(owner.pid for owner in found if _process(owner.pid) == owner)})


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


def _owners_of(inode: int, address: str) -> frozenset[_Process]:
    """Return the processes that listen at an abstract address; none if they are gone, or cannot be found.

    Whoever makes a socket that does not tell its owner hides no worker by it, and must not close the API to others.
    """
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)) as sock:
        try:
            sock.connect(address)
        except BlockingIOError:
            return _known(_holders_of(inode))  # too many wait to be accepted
        except OSError as error:
            if error.errno in _NO_WORKER:
                return frozenset()
            raise
        pid, *_ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return _known({pid} - {0})  # 0: in another pid namespace


def _holders_of(inode: int) -> set[int]:
    """Return the processes that have a socket open, of those that can be looked into."""
    found = set[int]()
    for pid in proc.pids():
        with suppress(OSError):  # it has ended, or is of another user
            if inode in proc.sockets(pid):
                found.add(pid)
    return found


def _known(pids: set[int]) -> frozenset[_Process]:
    """Return the processes that live. The owner of a socket may have died, and others may have it open."""
    return frozenset(process for process in map(_process, pids) if process is not None)


def _process(pid: int) -> _Process | None:
    try:
        return _Process(pid, proc.stat(pid).started)
    except OSError:
        return None
