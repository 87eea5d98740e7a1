"""User of the process at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import struct

__all__ = ["is_own_user"]


def is_own_user(sock: socket.socket) -> bool:
    """Return whether the peer runs as the same user. Each user of the machine can connect to an abstract address."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(user == os.geteuid())
