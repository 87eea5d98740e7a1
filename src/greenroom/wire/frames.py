"""Frames: one message each, with a small typed header and an opaque body.

On a stream socket frames follow each other and :class:`FrameDecoder` takes them apart; on a
``SOCK_SEQPACKET`` socket each packet is one frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from .payload import MAX_BYTES

__all__ = ["MAX_PACKET", "VERSION", "Frame", "FrameDecoder", "FrameError", "decode_packet", "encode_frame"]

VERSION = 1
MAX_HEADER = 1024 * 1024
MAX_PACKET = 96 * 1024  # well below the default socket buffer (208 KiB), which bounds a packet

_PREFIX = struct.Struct(">BBxxII")  # version, kind, header length, body length


class FrameError(Exception):
    """A peer sent something that is not a frame; it cannot be trusted any more and must be dropped."""


class Frame(NamedTuple):
    kind: int
    header: bytes
    body: bytes


def encode_frame(kind: int, header: bytes, body: bytes = b"") -> bytes:
    return _PREFIX.pack(VERSION, kind, len(header), len(body)) + header + body


def decode_packet(packet: bytes) -> Frame:
    """Take one packet apart; it must hold exactly one frame."""
    kind, header_size, body_size = _parse_prefix(packet)
    if len(packet) != _PREFIX.size + header_size + body_size:
        raise FrameError(f"a packet of {len(packet)} bytes says that it has {header_size} + {body_size}")
    start = _PREFIX.size + header_size
    return Frame(kind, packet[_PREFIX.size : start], packet[start:])


class FrameDecoder:
    """Collects the bytes of a stream and yields the frames in them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = _PREFIX.size

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add received bytes; yields every frame that is complete now. Raises :class:`FrameError`."""
        self._buffer += data
        # A frame's size is known from its prefix, so a large one costs no re-parsing as it grows.
        while len(self._buffer) >= self._needed:
            kind, header_size, body_size = _parse_prefix(self._buffer)
            self._needed = _PREFIX.size + header_size + body_size
            if len(self._buffer) < self._needed:
                return
            yield self._cut(kind, header_size)

    def _cut(self, kind: int, header_size: int) -> Frame:
        start = _PREFIX.size + header_size
        view = memoryview(self._buffer)
        frame = Frame(kind, bytes(view[_PREFIX.size : start]), bytes(view[start : self._needed]))
        view.release()
        del self._buffer[: self._needed]
        self._needed = _PREFIX.size
        return frame


def _parse_prefix(data: bytes | bytearray) -> tuple[int, int, int]:
    if len(data) < _PREFIX.size:
        raise FrameError(f"a packet of {len(data)} bytes is too short to be a frame")
    version, kind, header_size, body_size = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise FrameError(f"protocol version {version} instead of {VERSION}")
    if header_size > MAX_HEADER or body_size > MAX_BYTES:
        raise FrameError(f"a frame of {header_size} + {body_size} bytes is over the limit")
    return kind, header_size, body_size
