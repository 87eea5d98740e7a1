"""Frames: each carries one message, with a small typed header and an opaque body.

On a stream socket, frames follow each other, and :class:`FrameDecoder` separates them. On a ``SOCK_SEQPACKET`` socket,
each packet is one frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from .payload import MAX_BYTES

__all__ = [
    "MAX_LOG_PACKET",
    "MAX_PACKET",
    "PREFIX_SIZE",
    "VERSION",
    "Frame",
    "FrameDecoder",
    "FrameError",
    "Prefix",
    "decode_packet",
    "encode_frame",
    "encode_prefix",
    "parse_prefix",
]

VERSION = 1
MAX_HEADER = 1024 * 1024
MAX_PACKET = 96 * 1024  # well below the default socket buffer (208 KiB), which bounds a packet
MAX_LOG_PACKET = 64 * 1024
"""Most bytes of a packet on a log channel. Such a packet is one log record as JSON, without a frame."""

_PREFIX = struct.Struct(">BBxxII")  # version, kind, header length, body length
PREFIX_SIZE = _PREFIX.size


class FrameError(Exception):
    """Error for bytes that are not a valid frame. The peer that sent them is not trusted any more: drop the peer."""


class Frame(NamedTuple):
    kind: int
    header: bytes
    body: bytes


class Prefix(NamedTuple):
    """Start of a frame: its kind and its sizes in bytes."""

    kind: int
    header_size: int
    body_size: int

    @property
    def frame_size(self) -> int:
        """Size of the whole frame in bytes."""
        return _PREFIX.size + self.header_size + self.body_size


def encode_frame(kind: int, header: bytes, body: bytes = b"") -> bytes:
    return encode_prefix(kind, header, len(body)) + body


def encode_prefix(kind: int, header: bytes, body_size: int) -> bytes:
    """Return the frame without its body, so that the caller can send the body without a copy."""
    return _PREFIX.pack(VERSION, kind, len(header), body_size) + header


def decode_packet(packet: bytes) -> Frame:
    """Decode a packet, which must hold exactly one frame. Raises :class:`FrameError`."""
    prefix = parse_prefix(packet)
    if len(packet) != prefix.frame_size:
        raise FrameError(f"a packet of {len(packet)} bytes declares {prefix.header_size} + {prefix.body_size} bytes")
    start = _PREFIX.size + prefix.header_size
    return Frame(prefix.kind, packet[_PREFIX.size : start], packet[start:])


class FrameDecoder:
    """Decoder that collects the bytes of a stream and yields the frames in them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.unfinished: Prefix | None = None
        """Prefix of the frame that is not complete yet. ``None`` if the prefix itself is not complete."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add received bytes, and yield each frame that is complete now. Raises :class:`FrameError`."""
        self._buffer += data
        while True:
            # Parse each prefix only once: a large frame arrives in many pieces.
            if self.unfinished is None:
                if len(self._buffer) < _PREFIX.size:
                    return
                self.unfinished = parse_prefix(self._buffer)
            if len(self._buffer) < self.unfinished.frame_size:
                return
            yield self._cut(self.unfinished)

    def _cut(self, prefix: Prefix) -> Frame:
        start, end = _PREFIX.size + prefix.header_size, prefix.frame_size
        view = memoryview(self._buffer)
        frame = Frame(prefix.kind, bytes(view[_PREFIX.size : start]), bytes(view[start:end]))
        view.release()
        del self._buffer[:end]
        self.unfinished = None
        return frame


def parse_prefix(data: bytes | bytearray) -> Prefix:
    """Parse the first bytes of a frame. Raises :class:`FrameError`."""
    if len(data) < _PREFIX.size:
        raise FrameError(f"a packet of {len(data)} bytes is too short to be a frame")
    version, kind, header_size, body_size = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise FrameError(f"protocol version {version} instead of {VERSION}")
    if header_size > MAX_HEADER or body_size > MAX_BYTES:
        raise FrameError(f"a frame of {header_size} + {body_size} bytes is over the limit")
    return Prefix(kind, header_size, body_size)
