"""Sockets that take no fds from the other end.

Whoever sends an fd over a Unix socket can close its own copy. Then the receiver has the last one, and closes it, even
if it did not ask for fds. The close of a TCP socket with ``SO_LINGER`` waits for its peer (socket(7)), and so does that
of a file on a file system of the sender's: an event loop would stand still meanwhile.
"""

from __future__ import annotations

import socket
from contextlib import suppress

__all__ = ["refuse"]

_SO_PASSRIGHTS = 83
"""``include/uapi/asm-generic/socket.h``, since Linux 6.16. With 0, the sender gets ``EPERM``."""


def refuse(sock: socket.socket) -> None:
    """Have the kernel refuse fds from the other end, and from those that connect to a listener afterwards.

    Before Linux 6.16 this has no effect.
    """
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
