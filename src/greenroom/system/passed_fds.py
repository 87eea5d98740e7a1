"""Sockets that take no fds from the other end.

Whoever sends an fd over a Unix socket can close its own copy. Then the receiver has the last one, and closes it, even
if it did not ask for fds. The close of a TCP socket with ``SO_LINGER`` waits for its peer (socket(7)), and so does that
of a file on a file system of the sender's: an event loop would stand still meanwhile.

Linux 6.16 and later refuse such fds. Before, a thread closes them, and the sockets in which fds may wait.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress

__all__ = ["COMPLAINT", "KERNEL_VARIABLE", "close", "receive", "refuse"]

_SO_PASSRIGHTS = 83
"""``include/uapi/asm-generic/socket.h``, since Linux 6.16. With 0, the sender gets ``EPERM``."""
_MOST = 253
"""Most fds in one message (SCM_MAX_FD)."""
_SPACE = socket.CMSG_SPACE(_MOST * array.array("i").itemsize)
_AT_ONCE = struct.pack("ii", 1, 0)
"""Value of ``SO_LINGER``: the close resets the connection, and waits for nobody."""
COMPLAINT = "it sent file descriptors, which nobody has asked for"
KERNEL_VARIABLE = "PASSRIGHTS_LIMIT"
"""Name of a variable for tests. With ``0``, this module uses nothing of Linux 6.16."""

_can_refuse = False
"""True if the kernel refuses fds, as the last call of :func:`refuse` has found."""
_unclosed: list[int] = []
"""Fds that no thread could be started for. The next thread closes them."""


def refuse(sock: socket.socket) -> None:
    """Have the kernel refuse fds from the other end, and from those that connect to a listener afterwards.

    Before Linux 6.16 this has no effect.
    """
    global _can_refuse
    _can_refuse = False
    if os.environ.get(KERNEL_VARIABLE) != "0":
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
            _can_refuse = True


def receive(fd: int, size: int) -> tuple[bytes, bool]:
    """Read from a socket. Return the data, and whether fds have come with its last bytes. Raises ``OSError``."""
    if _can_refuse:
        return os.read(fd, size), False
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)  # also where the program has set a default timeout
    try:
        data, ancillary, _, _ = sock.recvmsg(size, _SPACE, socket.MSG_CMSG_CLOEXEC)
    finally:
        sock.detach()  # the fd belongs to the caller
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if fds:
        _close_in_thread(fds)
    return data, bool(fds)


def close(fd: int) -> None:
    """Close a socket, and with it the fds that wait in it unread."""
    if _can_refuse:
        os.close(fd)
    else:
        _close_in_thread([fd])


def _close_in_thread(fds: Iterable[int]) -> None:
    # A thread for each call: it may wait for as long as the sender likes, and no other may wait for it.
    _unclosed.extend(fds)
    thread = threading.Thread(target=_close_all, args=(list(_unclosed),), name="greenroom-close", daemon=True)
    with suppress(RuntimeError):  # no thread can be started now
        thread.start()
        _unclosed.clear()


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        with suppress(OSError):  # it is no socket
            sock = socket.socket(fileno=fd)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            finally:
                sock.detach()
        with suppress(OSError):  # a file system can answer anything
            os.close(fd)
