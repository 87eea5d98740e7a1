"""The time in a turn of the event loop that clients' bytes may take: the policy, and a connection that obeys it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from running_worker import RunningWorker
from support import DEADLINE

from greenroom.server.web.turns import SMALL, Turns

MakeApp = Callable[[str], str]

SECONDS = 0.01


class Piece:
    """A piece that takes a while to parse, and notes in which turn that was."""

    def __init__(self, name: str, parsed: list[str], seconds: float = 1.5 * SECONDS) -> None:
        self._name = name
        self._parsed = parsed
        self._seconds = seconds

    def parse_piece(self) -> None:
        end = time.perf_counter() + self._seconds
        while time.perf_counter() < end:
            continue
        self._parsed.append(self._name)


async def one_turn() -> None:
    await asyncio.sleep(0)


async def turn_begins(turns: Turns) -> None:
    async with asyncio.timeout(DEADLINE):
        while not turns.now():
            await one_turn()


async def test_a_turn_has_time_for_one_long_piece_and_small_ones_go_first() -> None:
    turns, parsed = Turns(asyncio.get_running_loop(), SECONDS), list[str]()
    assert turns.now()
    turns.spend(time.perf_counter() - 2 * SECONDS)
    assert not turns.now(), "its time is over"
    for number in range(3):
        turns.wait(Piece(f"large {number}", parsed), SMALL + 1)
    turns.wait(Piece("small", parsed), SMALL)
    seen = []
    while len(parsed) < 4:
        assert not turns.now()
        await one_turn()
        seen.append(len(parsed))
    # The small one, which takes all of the first turn, and beside it a large one; then one in each turn.
    assert parsed == ["small", "large 0", "large 1", "large 2"]
    assert seen == [2, 3, 4], "others have the loop in between"
    await turn_begins(turns)


async def test_short_pieces_share_a_turn() -> None:
    turns, parsed = Turns(asyncio.get_running_loop(), 1000.0), list[str]()
    turns.spend(time.perf_counter() - 2000.0)
    names = [f"piece {number}" for number in range(50)]
    for name in names:
        turns.wait(Piece(name, parsed, 0.0), SMALL)
    await one_turn()
    assert parsed == names


async def test_the_piece_of_a_lost_connection_is_not_parsed() -> None:
    turns, parsed = Turns(asyncio.get_running_loop(), SECONDS), list[str]()
    turns.spend(time.perf_counter() - 2 * SECONDS)
    lost = Piece("lost", parsed)
    turns.wait(lost, 1)
    turns.wait(Piece("there", parsed), 1)
    turns.forget(lost)
    turns.forget(lost)
    while not parsed:
        await one_turn()
    assert parsed == ["there"]


NOOP = "@app.entrypoint\nasync def entrypoint(ctx): ..."


TINY = 20_000
HEAD = (
    b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
BODY = b'{"metadata": "' + b"x" * TINY + b'", "wrong": 1}'


def in_tiny_chunks(body: bytes) -> bytes:
    return b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body)


def is_whole(answer: bytes) -> bool:
    """The unknown field is the last one: whoever says so has read the whole body."""
    return b" 400 " in answer.split(b"\r\n")[0] and b"wrong" in answer


async def test_a_flood_of_tiny_chunks_is_parsed_in_turns_and_all_of_it(make_app: MakeApp) -> None:
    """Each of 60 connections sends a body in 1-byte chunks. Every body arrives whole, and probes are answered."""
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0") as worker:
        port = await worker.port()

        async def send() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD + in_tiny_chunks(BODY) + b"0\r\n\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

        async def probe(done: asyncio.Event) -> set[Any]:
            seen = set()
            while not done.is_set():
                seen.add((await worker.get("/livez")).status)
            return seen

        done = asyncio.Event()
        probing = asyncio.create_task(probe(done))
        answers = await asyncio.gather(*(send() for _ in range(60)))
        done.set()
        assert await probing == {200}
        odd = [answer for answer in answers if not is_whole(answer)]
        assert odd == []
