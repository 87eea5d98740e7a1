"""Requests that a client sends without waiting for answers: all are answered in order, and few are read ahead."""

from __future__ import annotations

import asyncio
import socket
import time

from aiohttp import web
from raw_http import connect, request
from support import DEADLINE

from greenroom.server.stall_guard import StallGuard
from greenroom.server.web.answer_marks import AnswerMarks
from greenroom.server.web.answers import LargeAnswers
from greenroom.server.web.arrivals import Arrivals
from greenroom.server.web.connections import Crowd, HeldBytes
from greenroom.server.web.http_connection import Connection
from greenroom.server.web.turns import PIECE, Turns

MOST_AHEAD = 32
"""Requests that aiohttp keeps ahead of the present one."""


class Server:
    """Serves Greenroom's connections on a socket of its own. Each answer repeats its request's path."""

    def __init__(self) -> None:
        self.read_ahead = 0
        self.queued = 0
        self._loop = asyncio.get_running_loop()
        self._held = HeldBytes(1 << 30)
        self._turns = Turns(self._loop)
        self._connections: list[Connection] = []
        self._spare = socket.socket()
        self._manager = web.Server(self._answer)

    def connection(self) -> Connection:
        connection = Connection(
            self._manager,
            network="127.0.0.1",
            sock=self._spare,
            arrivals=Arrivals(StallGuard()),
            crowd=Crowd(10),
            held=self._held,
            answers=LargeAnswers(),
            turns=self._turns,
            half_closed=set(),
            marks=AnswerMarks("here", lambda: False),
            loop=self._loop,
        )
        self._connections.append(connection)
        return connection

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        for _ in range(3):
            self._spend_the_turn()
            await asyncio.sleep(0)
            self._look()
        return web.Response(text=request.path)

    def _spend_the_turn(self) -> None:
        """Use up the time for parsing, so that whatever comes now waits for its turn."""
        self._turns.spend(time.perf_counter() - 1.0)

    def _look(self) -> None:
        (connection,) = self._connections
        self.read_ahead = max(self.read_ahead, self._held.of(connection))
        self.queued = max(self.queued, len(connection._messages))

    async def close(self) -> None:
        await self._manager.shutdown(DEADLINE)
        self._spare.close()


async def test_a_burst_of_pipelined_requests_is_answered_in_order_and_not_read_ahead() -> None:
    """40 requests fit into one piece and overflow aiohttp's queue; 5,000 do not fit into what may be read ahead."""
    loop = asyncio.get_running_loop()
    for count in (40, 5000):
        server = Server()
        listener = await loop.create_server(server.connection, "127.0.0.1", 0)
        async with listener, await connect(listener.sockets[0].getsockname()[1]) as client:
            client.send(b"".join(request("GET", f"/{number}") for number in range(count)))
            answers = [(await client.answer()).body.decode() for _ in range(count)]
            assert answers == [f"/{number}" for number in range(count)]
        await server.close()
        assert server.queued <= MOST_AHEAD
        # What the parser keeps, the next piece, and what is parsed but not answered.
        assert server.read_ahead <= 3 * PIECE
