"""Packets with file descriptors on a ``SOCK_SEQPACKET`` socket."""

from __future__ import annotations

import array
import os
import socket

from .frames import MAX_PACKET, Frame, FrameError, decode_packet

__all__ = ["FdsLost", "receive", "send"]


class FdsLost(Exception):
    """Packet that arrived without its file descriptors: the receiver has no free fd number for them."""

    def __init__(self, frame: Frame) -> None:
        super().__init__("a packet's file descriptors were cut off: out of file descriptors")
        self.frame = frame


def send(sock: socket.socket, packet: bytes, fds: tuple[int, ...] = ()) -> None:
    """Send one packet. Raises ``BlockingIOError`` if a non-blocking socket is full; then nothing is sent."""
    if fds:
        socket.send_fds(sock, [packet], list(fds))
    else:
        sock.send(packet)


def receive(sock: socket.socket, max_fds: int) -> tuple[Frame, list[int]] | None:
    """Receive one packet. Return ``None`` if the peer has closed. Raises :class:`FrameError`, :class:`FdsLost`.

    The caller owns the received fds. ``MSG_CMSG_CLOEXEC`` matters: without it an exec'd grandchild would inherit the
    fds. One leaked write end of a lifeline prevents its hang-up for ever.
    """
    space = socket.CMSG_LEN(max_fds * array.array("i").itemsize)
    data, ancillary, flags, _ = sock.recvmsg(MAX_PACKET, space, socket.MSG_CMSG_CLOEXEC)
    fds = _fds_in(ancillary)
    # The flags do not show the end: the kernel always sets MSG_CMSG_CLOEXEC in them.
    if not data and not fds:
        return None
    try:
        return _checked(data, flags), fds
    except (FrameError, FdsLost):
        for fd in fds:
            os.close(fd)
        raise


def _checked(data: bytes, flags: int) -> Frame:
    if flags & socket.MSG_TRUNC:
        raise FrameError(f"a packet was longer than {MAX_PACKET} bytes")
    frame = decode_packet(data)
    if flags & socket.MSG_CTRUNC:
        raise FdsLost(frame)
    return frame


def _fds_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
