"""The names of aiohttp that the server uses and aiohttp does not document. A version without one of them fails here.

What they do is tested in ``test_server_bodies``, ``test_server_pipelining`` and ``test_server_http``.
"""

from __future__ import annotations

import asyncio
import inspect
import socket

import pytest
from aiohttp import StreamReader, web
from aiohttp.http_writer import StreamWriter
from aiohttp.payload import Payload

from greenroom.server.stall_guard import StallGuard
from greenroom.server.web.answer_marks import AnswerMarks
from greenroom.server.web.answers import LargeAnswers
from greenroom.server.web.arrivals import Arrivals
from greenroom.server.web.connections import Crowd, HeldBytes
from greenroom.server.web.http_connection import Connection
from greenroom.server.web.turns import Turns

OVERRIDDEN = [
    "_resume_transport_reading",
    "connection_made",
    "connection_lost",
    "data_received",
    "eof_received",
    "handle_error",
    "pause_writing",
    "resume_reading",
    "resume_writing",
]


@pytest.mark.parametrize("name", [*OVERRIDDEN, "finish_response"])
def test_each_method_that_is_replaced_is_there_and_takes_the_same(name: str) -> None:
    theirs, ours = (inspect.signature(getattr(kind, name)) for kind in (web.RequestHandler, Connection))
    assert list(theirs.parameters) == list(ours.parameters)
    is_async = [inspect.iscoroutinefunction(getattr(kind, name)) for kind in (web.RequestHandler, Connection)]
    assert is_async == [name == "finish_response"] * 2


async def test_a_connection_has_what_is_used_of_it() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    manager = web.Server(handler)
    assert manager.request_handler is handler
    with socket.socket() as sock:
        connection = Connection(
            manager,
            network="a",
            sock=sock,
            arrivals=Arrivals(StallGuard()),
            crowd=Crowd(10),
            held=HeldBytes(10),
            answers=LargeAnswers(),
            turns=Turns(asyncio.get_running_loop()),
            half_closed=set(),
            marks=AnswerMarks("here", lambda: False),
            loop=asyncio.get_running_loop(),
        )
    assert connection._request_count == 0
    assert connection._reading_paused is False
    assert connection._buffer_paused is False
    assert len(connection._messages) == 0
    assert connection._waiter is None
    assert connection._current_request is None
    # Whatever is not called so would be taken by no parser; a packed body is to come as it is.
    parameters = inspect.signature(web.RequestHandler.__init__).parameters
    assert {"auto_decompress", "read_bufsize", "lingering_time", "keepalive_timeout"} <= set(parameters)


def test_an_answer_s_writer_and_a_body_count_bytes() -> None:
    assert hasattr(StreamWriter, "output_size")
    assert "total_bytes" in StreamReader.__slots__


def test_a_payload_of_ours_is_complete() -> None:
    assert Payload.__abstractmethods__ <= {"decode", "write"}
