"""The socket that takes connections: errors of accept(2), and warnings that could flood the log."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from raw_http import connect, request
from support import DEADLINE, eventually, listening

from greenroom.server.stall_guard import StallGuard
from greenroom.server.web.answer_marks import AnswerMarks
from greenroom.server.web.answers import LargeAnswers
from greenroom.server.web.app import listen
from greenroom.server.web.arrivals import Arrivals
from greenroom.server.web.connections import Crowd, HeldBytes
from greenroom.server.web.http_connection import Connection
from greenroom.server.web.listener import BATCH, Listener
from greenroom.server.web.throttled_warning import ThrottledWarning
from greenroom.server.web.turns import Turns


class Records(logging.Handler):
    """The warnings that were logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


class Socket(socket.socket):
    """A listening socket of which the kernel passes on errors of connections that were never accepted."""

    errors: list[int]
    accepts = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.accepts += 1
        if self.errors:
            number = self.errors.pop()
            raise OSError(number, os.strerror(number))
        return super().accept()


@asynccontextmanager
async def listener_on(
    sock: socket.socket, stalls: StallGuard | None = None, arrived: list[Arrivals] | None = None
) -> AsyncIterator[Listener]:
    """Listen on a socket. ``arrived`` gets what the listener says of each connection."""
    loop, stalls, arrived = asyncio.get_running_loop(), stalls or StallGuard(), [] if arrived is None else arrived

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    manager, crowd, turns = web.Server(answer), Crowd(200), Turns(loop)

    def connection(network: str, sock: socket.socket, arrivals: Arrivals) -> Connection:
        arrived.append(arrivals)
        return Connection(
            manager,
            network=network,
            sock=sock,
            arrivals=arrivals,
            crowd=crowd,
            held=HeldBytes(1 << 20),
            answers=LargeAnswers(),
            turns=turns,
            half_closed=set(),
            marks=AnswerMarks("here", lambda: False),
            loop=loop,
        )

    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    listener = Listener(sock, crowd, connection, stalls)
    listener.start()
    try:
        yield listener
    finally:
        await listener.close()
        await manager.shutdown(DEADLINE)
        sock.close()
    assert faults == []


def bound() -> Socket:
    sock = Socket()
    sock.errors = []
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


async def test_an_error_of_one_connection_keeps_no_other_out() -> None:
    names = ["EPROTO", "ENETDOWN", "EHOSTUNREACH", "EPERM", "ENETUNREACH", "EOPNOTSUPP", "ENOPROTOOPT", "ECONNABORTED"]
    sock = bound()
    sock.errors = [getattr(errno, name) for name in names]
    with listening(Records(), "greenroom") as records:
        async with listener_on(sock), await connect(sock.getsockname()[1]) as client:
            client.send(request("GET", "/"))
            assert (await client.answer()).status == 200
        first, rest = records.texts
    assert "lost before it was accepted" in first
    assert "(7 times)" in rest, "the others are counted, and logged at the end"


async def test_connections_that_waited_in_a_stall_are_known_for_as_long_as_their_queue_lasts() -> None:
    now, loop = 0.0, asyncio.get_running_loop()
    guard, arrived, sock = StallGuard(lambda: now), list[Arrivals](), bound()

    def are_stale() -> list[bool]:
        return [not arrivals._is_next and arrivals._before < guard.count for arrivals in arrived]

    async with listener_on(sock, guard, arrived) as listener, AsyncExitStack() as stack:
        guard.start()
        loop.remove_reader(sock)  # the test says when connections are accepted
        for _ in range(BATCH + 6):
            await stack.enter_async_context(await connect(sock.getsockname()[1]))
        now = 5.0
        listener._accept()
        assert are_stale() == [True] * BATCH
        now += 0.2
        await eventually(lambda: guard.over == guard.count == 1, "the end of the stall")
        listener._accept()  # the stall is over, but these have waited, too
        assert are_stale() == [True] * (BATCH + 6)
        await stack.enter_async_context(await connect(sock.getsockname()[1]))
        listener._accept()
        assert are_stale() == [*[True] * (BATCH + 6), False]
        guard.stop()


async def test_the_last_of_a_full_batch_leave_an_empty_queue() -> None:
    now, loop = 0.0, asyncio.get_running_loop()
    guard, arrived, sock = StallGuard(lambda: now), list[Arrivals](), bound()
    async with listener_on(sock, guard, arrived) as listener, AsyncExitStack() as stack:
        guard.start()
        loop.remove_reader(sock)
        for _ in range(BATCH):
            await stack.enter_async_context(await connect(sock.getsockname()[1]))
        listener._accept()
        now = 5.0
        assert guard.count == 1
        now += 0.2
        await eventually(lambda: guard.over == 1, "the end of the stall")
        await stack.enter_async_context(await connect(sock.getsockname()[1]))
        listener._accept()
        assert arrived[-1]._is_next, "it came after the stall"
        guard.stop()


async def test_a_socket_that_is_broken_is_tried_again_now_and_then() -> None:
    sock = bound()
    with listening(Records(), "greenroom") as records:
        async with listener_on(sock):
            sock.shutdown(socket.SHUT_RDWR)  # accept gives EINVAL from now on
            await eventually(lambda: sock.accepts >= 2)
    assert records.texts[0] == "cannot accept a connection: Invalid argument"


@pytest.mark.parametrize("ends_by", ["timer", "close"])
async def test_a_throttled_warning_counts_what_it_does_not_log(ends_by: str) -> None:
    loop = asyncio.get_running_loop()
    with listening(Records(), "greenroom") as records:
        warning = ThrottledWarning(loop, "some_event", every=0.01 if ends_by == "timer" else DEADLINE)
        for number in range(5):
            warning.warn("number %d", number)
        assert records.texts == ["number 0"]
        if ends_by == "timer":
            await eventually(lambda: len(records.texts) == 2)
        warning.close()
        assert records.texts == ["number 0", "number 4 (4 times)"]
        warning.close()
        assert len(records.texts) == 2


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_an_empty_host_is_all_addresses_of_both_families() -> None:
    with listen("", 0) as sock:
        port = sock.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), DEADLINE).close()
    with listen("0.0.0.0", 0) as sock:
        assert sock.family == socket.AF_INET
