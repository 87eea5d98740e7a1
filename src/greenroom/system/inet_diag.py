"""Owner of a TCP socket of this machine, by one exact request to the kernel (sock_diag(7)), which lists nothing."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Ends", "SocketOwner", "owners"]

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port id
_REQUEST = struct.Struct("=BBxxI")  # inet_diag_req_v2 up to its socket: family, protocol, states
_SOCKET = struct.Struct("!HH16s16s4x8s")  # inet_diag_sockid: ports, addresses, interface, cookie
_ANSWER = struct.Struct("=xB2x48x12xII")  # inet_diag_msg: state, and behind the socket and its queues: user, inode
_NO_COOKIE = b"\xff" * 8
_OPEN_STATES = frozenset({1, 4, 5, 8})
"""States (tcp_states.h) of a connection: established, or closed in one direction. Where no connection has the ends, the
kernel returns a listener at the own end, if there is one."""
_TIMEOUT = 1.0


class Ends(NamedTuple):
    """Addresses and ports of a TCP connection. The socket that is looked for is the one at ``own``."""

    own: tuple[str, int]
    other: tuple[str, int]


class SocketOwner(NamedTuple):
    """User that made a socket, and inode of the socket, which links in ``/proc/PID/fd`` name: ``socket:[INODE]``."""

    user: int
    inode: int


def owners(wanted: Iterable[Ends]) -> dict[Ends, SocketOwner]:
    """Return the owners of those sockets that a process of this machine has open.

    None is found if the kernel has no sock_diag for TCP. Raises ``OSError``: the kernel cannot be asked.
    """
    found: dict[Ends, SocketOwner] = {}
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_TIMEOUT)
        for ends in wanted:
            kernel.send(_request(ends))
            owner = _owner_in(kernel.recv(8192))
            if owner is not None:
                found[ends] = owner
    return found


def _request(ends: Ends) -> bytes:
    family = socket.AF_INET6 if ":" in ends.own[0] else socket.AF_INET
    addresses = (socket.inet_pton(family, address).ljust(16, b"\0") for address, _ in ends)
    sockets = _SOCKET.pack(ends.own[1], ends.other[1], *addresses, _NO_COOKIE)
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0) + sockets
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0) + body


def _owner_in(answer: bytes) -> SocketOwner | None:
    kind = _HEADER.unpack_from(answer)[1]
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None  # an error: no socket has these ends
    state, user, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    # A socket that its process has closed has no inode any more.
    return SocketOwner(user, inode) if state in _OPEN_STATES and inode else None
