"""The time that a body may take is its client's: what the worker needs for other clients does not count."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from aiohttp import web
from raw_http import connect
from support import DEADLINE

from greenroom.server.stall_guard import StallGuard
from greenroom.server.web import body_clock
from greenroom.server.web.answer_marks import AnswerMarks
from greenroom.server.web.answers import LargeAnswers
from greenroom.server.web.app import _serve_by_connection
from greenroom.server.web.arrivals import Arrivals
from greenroom.server.web.connections import Crowd, HeldBytes
from greenroom.server.web.http_connection import Connection
from greenroom.server.web.turns import Turns

BODY_SECONDS = 2.0


class Hog:
    """Bytes of another client that take so many seconds to parse."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def parse_piece(self) -> None:
        time.sleep(self._seconds)


@pytest.mark.parametrize(
    "others", [[1.5, 1.5, 0.1], [3.0, 0.1]], ids=["waits for its turn", "comes while the loop is held up"]
)
async def test_other_clients_time_is_not_taken_from_a_body(
    others: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_clock, "BODY_SECONDS", BODY_SECONDS)
    loop = asyncio.get_running_loop()
    turns, begun, spare = Turns(loop), asyncio.Event(), socket.socket()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        return web.Response(body=await request.read())

    manager = web.Server(answer)
    _serve_by_connection(manager)

    def connection() -> Connection:
        return Connection(
            manager,
            network="127.0.0.1",
            sock=spare,
            arrivals=Arrivals(StallGuard()),
            crowd=Crowd(10),
            held=HeldBytes(1 << 30),
            answers=LargeAnswers(),
            turns=turns,
            half_closed=set(),
            marks=AnswerMarks("here", lambda: False),
            loop=loop,
        )

    listener = await loop.create_server(connection, "127.0.0.1", 0)
    async with listener, await connect(listener.sockets[0].getsockname()[1]) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf")
        await asyncio.wait_for(begun.wait(), DEADLINE)
        for seconds in others:
            turns.wait(Hog(seconds), 1)
        client.send(b"half")
        answered = await client.answer()
        assert (answered.status, answered.body) == (200, b"halfhalf")
    await manager.shutdown(DEADLINE)
    spare.close()
