"""Connections that are many, short, silent, or only half there."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack, suppress

from .base import Attack, Turn

TCP_REPAIR = 19  # linux/tcp.h; Python's socket module does not name it
_RESET = struct.pack("ii", 1, 0)


class IdleConnections(Attack):
    name = "idle-connections"
    about = "2,000 connections that send nothing"

    def strike(self, turn: Turn) -> None:
        with ExitStack() as stack:
            for _ in turn.times(500 * self.target.rate, limit=2000):
                self.open(stack)
            turn.rest()


class OpenedAndReset(Attack):
    name = "opened-and-reset"
    about = "300 connections a second, each reset as soon as it is there"

    def strike(self, turn: Turn) -> None:
        for _ in turn.times(300 * self.target.rate):
            with ExitStack() as stack:
                if sock := self.open(stack):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class HalfHeads(Attack):
    name = "half-heads"
    about = "300 connections that stop in the middle of their headers"

    def strike(self, turn: Turn) -> None:
        heads = (
            b"G",
            b"GET /livez HT",
            b"GET /livez HTTP/1.1\r\nHost: 127",
            self.target.post("Content-Length: 1")[:-2],
        )
        with ExitStack() as stack:
            for number in turn.times(100 * self.target.rate, limit=300):
                if sock := self.open(stack):
                    self.send(sock, heads[number % len(heads)])
            turn.rest()


class HalfOpen(Attack):
    name = "half-open"
    about = "20 connections a second whose client vanishes without a close, as in a power cut"

    def strike(self, turn: Turn) -> None:
        for number in turn.times(20 * self.target.rate):
            with ExitStack() as stack:
                if sock := self.open(stack):
                    self.send(
                        sock, self.target.head("GET /v1/events", *self.target.authorization if number % 2 else ())
                    )
                    self._vanish(sock)

    def _vanish(self, sock: socket.socket) -> None:
        # In repair mode the kernel closes a socket without a FIN or RST. It needs CAP_NET_ADMIN.
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            self.count["vanished"] += 1
        except OSError:
            self.count["not permitted to vanish"] += 1


class HalfClosed(Attack):
    name = "half-closed"
    about = "100 connections that send a request, close their sending side, and read nothing"

    def strike(self, turn: Turn) -> None:
        requests = (self.target.head("GET /livez") * 20, self.target.post("Content-Length: 100") + b"{", b"")
        with ExitStack() as stack:
            for number in turn.times(50 * self.target.rate, limit=100):
                if sock := self.open(stack):
                    self.send(sock, requests[number % len(requests)])
                    with suppress(OSError):
                        sock.shutdown(socket.SHUT_WR)
            turn.rest()
