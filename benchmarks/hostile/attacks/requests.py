"""Requests that are many, wrong, or no HTTP."""

from __future__ import annotations

import os
from contextlib import ExitStack
from itertools import cycle

from .base import Attack, Turn


class Pipelining(Attack):
    name = "pipelining"
    about = "2,000 requests in one write on each of 2 connections, without reading the answers"

    def strike(self, turn: Turn) -> None:
        for _ in turn.times(0.25 * self.target.rate):
            with ExitStack() as stack:
                for path in ("/livez", "/v1/pool"):
                    if sock := self.open(stack, timeout=2.0):
                        self.send(sock, self.target.head(f"GET {path}") * 2000)
                turn.wait(3)


class WrongTokens(Attack):
    name = "wrong-tokens"
    about = "300 requests a second with a wrong token, on one connection"

    def strike(self, turn: Turn) -> None:
        with ExitStack() as stack:
            sock = self.open(stack)
            for _ in turn.times(300 * self.target.rate):
                wrong = f"Authorization: Bearer {self.target.random.getrandbits(128):x}"
                if sock is None or not self.send(sock, self.target.head("GET /v1/jobs?limit=1", wrong)):
                    sock = self.open(stack)
                    continue
                self.status(sock, 5)


class WrongHosts(Attack):
    name = "wrong-hosts"
    about = "50 requests a second that name another host, two hosts, none, or one of 8 kB"

    def strike(self, turn: Turn) -> None:
        hosts = cycle(["Host: evil.example", "Host: 127.0.0.1\r\nHost: evil.example", "X: y", "Host: " + "a" * 8000])
        for _ in turn.times(50 * self.target.rate):
            self.exchange(f"GET /v1/pool HTTP/1.1\r\n{next(hosts)}\r\nConnection: close\r\n\r\n".encode())


class NotHttp(Attack):
    name = "not-http"
    about = "30 times a second data that is not HTTP/1.1: TLS, HTTP/2, noise, headers of 200 kB"

    def strike(self, turn: Turn) -> None:
        hello = bytes.fromhex("16030100c8010000c40303") + bytes(193)
        http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
        header = b"GET /livez HTTP/1.1\r\nX: " + b"h" * 200_000
        lengths = self.target.post("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\nGET /v1/pool"
        data = cycle([hello, http2, header, lengths, None])
        for _ in turn.times(30 * self.target.rate):
            self.exchange(next(data) or os.urandom(4096), 2)
