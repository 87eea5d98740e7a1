"""Clients with the token that read slowly, or not at all."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress

from .base import Attack, Turn


class SlowResults(Attack):
    name = "slow-results"
    about = "5 clients that read a result of 20 MiB at 8 kB/s"

    def strike(self, turn: Turn) -> None:
        job = self.target.start(self.name, "completed", role="big", mb=20)
        if job is None:
            return
        for _ in turn.times(2, limit=20):
            if self.target.is_over(job):
                break
        with ExitStack() as stack:
            request = self.target.head(f"GET /v1/jobs/{job}", *self.target.authorization)
            socks = [sock for _ in range(5) if (sock := self._ask(stack, request))]
            for _ in turn.times(2):
                self.count["bytes"] += sum(_sip(sock) for sock in socks)

    def _ask(self, stack: ExitStack, request: bytes) -> socket.socket | None:
        sock = self.open(stack)
        return sock if sock is not None and self.send(sock, request) else None


def _sip(sock: socket.socket) -> int:
    sock.settimeout(0.05)
    with suppress(OSError):
        return len(sock.recv(4096))
    return 0


class SilentStreams(Attack):
    name = "silent-streams"
    about = "70 clients of /v1/events that read nothing"

    def strike(self, turn: Turn) -> None:
        with ExitStack() as stack:
            for _ in turn.times(35 * self.target.rate, limit=70):
                if sock := self.open(stack):
                    self.send(sock, self.target.head("GET /v1/events", *self.target.authorization))
            turn.rest()
