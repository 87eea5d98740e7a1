"""Packets with file descriptors on a ``SOCK_SEQPACKET`` socket."""

from __future__ import annotations

import array
import os
import socket

from .frames import MAX_PACKET, Frame, FrameError, decode_packet

__all__ = ["receive", "send"]


def send(sock: socket.socket, packet: bytes, fds: tuple[int, ...] = ()) -> None:
    """Send one packet. Raises ``BlockingIOError`` on a full non-blocking socket, having sent nothing."""
    if fds:
        socket.send_fds(sock, [packet], list(fds))
    else:
        sock.send(packet)


def receive(sock: socket.socket, max_fds: int) -> tuple[Frame, list[int]] | None:
    """Receive one packet; ``None`` when the peer has closed. Raises :class:`FrameError`.

    Whoever receives fds owns them. ``MSG_CMSG_CLOEXEC`` matters: without it an exec'd grandchild
    would inherit them, and one leaked end keeps a lifeline from ever hanging up.
    """
    space = socket.CMSG_LEN(max_fds * array.array("i").itemsize)
    data, ancillary, flags, _ = sock.recvmsg(MAX_PACKET, space, socket.MSG_CMSG_CLOEXEC)
    fds = _fds_in(ancillary)
    try:
        if flags & socket.MSG_CTRUNC:
            # Also how the kernel says that this process has no free fd left to receive them in.
            raise FrameError("a packet's file descriptors were cut off (out of file descriptors?)")
        if flags & socket.MSG_TRUNC:
            raise FrameError(f"a packet was longer than {MAX_PACKET} bytes")
        if not data:
            return None
        return decode_packet(data), fds
    except FrameError:
        for fd in fds:
            os.close(fd)
        raise


def _fds_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
