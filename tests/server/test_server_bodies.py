"""Bodies that are packed, endless, unfinished or unwanted, and answers that nobody reads."""

from __future__ import annotations

import asyncio
import itertools
import os
import zlib
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

import pytest
from raw_http import Connection, connect, peak_mb, post, request, resident_mb
from running_worker import RunningWorker

MakeApp = Callable[[str], str]

TOKEN = "correct-horse-battery-staple"
MIB = 1 << 20
LONG = 55.0
"""Seconds: above every deadline of the worker's, below that of a test."""
NOOP = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""
LARGE = """
@app.entrypoint
async def entrypoint(ctx):
    return "x" * (30 * 1024 * 1024)
"""


def with_token() -> dict[str, str]:
    return {**os.environ, "GREENROOM_TOKEN": TOKEN}


def packed(mib: int) -> bytes:
    """So much of nothing, as gzip."""
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(MIB)
    return b"".join([*(packer.compress(zeros) for _ in range(mib)), packer.flush()])


# --- packed bodies -------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [False, True])
async def test_no_body_is_unpacked_wherever_it_is_sent(make_app: MakeApp, token: bool) -> None:
    spawn = {"env": with_token()} if token else {}
    body = packed(1)
    framings = [
        (f"Content-Length: {len(body)}", body),
        ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)),
    ]
    paths = ["/v1/jobs", "/livez", "/readyz", "/nowhere", "/v1/pool/resize", "/v1/events", "/"]
    codings = ["gzip", "deflate", "br", "zstd", "GZIP", "x-own", "gzip, identity", "identity, gzip"]
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", **spawn) as worker:
        port = await worker.port()
        for method, path, coding, (framing, sent) in itertools.product(
            ["POST", "GET", "DELETE"], paths, codings, framings
        ):
            async with await connect(port) as connection:
                json_type = "Content-Type: application/json"
                connection.send(request(method, path, json_type, f"Content-Encoding: {coding}", framing) + sent)
                answer = await connection.answer()
                assert answer.status == 415, (method, path, coding, framing, answer)
                assert answer.error["type"] == "encoded_body"
        async with await connect(port) as connection:
            connection.send(request("POST", "/v1/jobs", "Transfer-Encoding: gzip, chunked") + framings[1][1])
            assert (await connection.answer()).error["type"] == "encoded_body"
        assert not [line for line in worker.lines if "Traceback" in line]


async def test_a_body_that_says_it_is_not_packed_is_read(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "1") as worker:
        for coding in ("identity", "Identity", ""):
            answer = await worker.ask("POST", "/v1/jobs", json={}, headers={"Content-Encoding": coding})
            assert answer.status == 201, coding


async def test_a_bomb_is_refused_and_the_rest_of_it_not_read(make_app: MakeApp) -> None:
    bomb = packed(1024)
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", env=with_token()) as worker:
        port = await worker.port()
        before = peak_mb(worker.pid)
        for _ in range(3):
            async with await connect(port) as connection:
                connection.send(post(len(bomb), "Content-Encoding: gzip") + bomb)
                assert (await connection.answer()).status == 415
        assert peak_mb(worker.pid) - before < 32
        assert (await worker.get("/livez")).status == 200


# --- bodies that nobody reads --------------------------------------------------------------------


async def test_a_refused_body_is_not_read_on(make_app: MakeApp) -> None:
    """Each is refused before its body is read: unauthorized, unknown, too large, and a path that takes none."""
    endless = f"Content-Length: {1 << 40}"
    right = f"Authorization: Bearer {TOKEN}"
    cases = [
        (request("POST", "/v1/jobs", endless), 401),
        (request("POST", "/v1/jobs", "Transfer-Encoding: chunked"), 401),
        (request("POST", "/nowhere", endless, right), 404),
        (request("PUT", "/v1/jobs", endless, right), 405),
        (post(1 << 40, right), 413),
        (request("GET", "/livez", endless), 200),
    ]
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", env=with_token()) as worker:
        port = await worker.port()
        for head, status in cases:
            async with await connect(port) as connection:
                connection.send(head)
                answer = await connection.answer()
                assert answer.status == status, (head, answer)
                assert answer.headers["connection"] == "close"
                assert await _send_until_cut(connection, "chunked" in head.decode()) < 64 * MIB, head


async def _send_until_cut(connection: Connection, is_chunked: bool) -> int:
    """Send without end; returns how many bytes went out until the other side was gone."""
    block, sent = bytes(1 << 16), 0
    data = b"10000\r\n%s\r\n" % block if is_chunked else block
    with suppress(ConnectionError):
        while sent < 256 * MIB:
            connection.send(data)
            await connection.writer.drain()
            sent += len(data)
    return sent


async def test_a_refused_body_that_ends_soon_costs_neither_the_answer_nor_the_connection(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", env=with_token()) as worker:
        port = await worker.port()
        async with await connect(port) as connection:
            for _ in range(20):
                connection.send(post(200_000))
                assert (await connection.answer()).status == 401
                connection.send(bytes(200_000))


async def test_a_client_that_waits_for_100_is_told_no_first(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "1", env=with_token()) as worker:
        port = await worker.port()
        async with await connect(port) as connection:
            connection.send(post(100, "Expect: 100-continue"))
            assert (await connection.answer()).status == 401
            assert await connection.is_cut() == b""
        right = f"Authorization: Bearer {TOKEN}"
        async with await connect(port) as connection:
            connection.send(post(1 << 40, "Expect: 100-continue", right))
            assert (await connection.answer()).status == 413
        async with await connect(port) as connection:
            connection.send(post(2, "Expect: 100-continue", right))
            assert (await connection.answer()).status == 100
            connection.send(b"{}")
            assert (await connection.answer()).status == 201


# --- bodies without an end -----------------------------------------------------------------------


@pytest.mark.more
async def test_an_unfinished_body_has_a_deadline(make_app: MakeApp) -> None:
    """All at once: they stop, drip, come in chunks, follow a 100, are read by nobody, or stop within a trailer."""
    json_type, chunked = "Content-Type: application/json", "Transfer-Encoding: chunked"
    heads = {
        "stops": post(MIB) + b"{",
        "chunks": request("POST", "/v1/jobs", json_type, chunked) + b"1\r\n{\r\n",
        "no size": request("POST", "/v1/jobs", json_type, chunked) + b"1;" + b"x" * 100,
        "trailer": request("POST", "/v1/jobs", json_type, chunked) + b"2\r\n{}\r\n0\r\nX: y",
    }
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "1") as worker, AsyncExitStack() as stack:
        port = await worker.port()
        open_ = {name: await stack.enter_async_context(await connect(port)) for name in [*heads, "drips", "100"]}
        for name, head in heads.items():
            open_[name].send(head)
        open_["100"].send(post(100, "Expect: 100-continue"))
        assert (await open_["100"].answer()).status == 100
        open_["drips"].send(post(MIB))
        dripping = asyncio.create_task(_drip(open_["drips"]))
        for name, connection in open_.items():
            answer = await connection.answer(LONG)
            assert (answer.status, answer.error["type"]) == (408, "body_timeout"), (name, answer)
            assert answer.headers["connection"] == "close"
        await dripping
        assert not [line for line in worker.lines if "Traceback" in line]
        assert (await worker.post()).status == 201


async def _drip(connection: Connection) -> None:
    with suppress(ConnectionError):
        while not connection.reader.at_eof():
            connection.send(b" ")
            await connection.writer.drain()
            await asyncio.sleep(0.2)  # its pace


@pytest.mark.more
async def test_a_body_that_is_read_by_nobody_has_a_deadline_too(make_app: MakeApp) -> None:
    source = "@app.entrypoint\nasync def entrypoint(ctx):\n    await asyncio.sleep(3600)\n"
    async with RunningWorker(make_app(source), "--num-idle-processes", "1") as worker:
        job = await worker.start(None)
        port = await worker.port()
        async with await connect(port) as waiting, await connect(port) as streaming:
            waiting.send(request("GET", f"/v1/jobs/{job['id']}?wait=600", "Content-Length: 1000"))
            streaming.send(request("GET", "/v1/events", "Content-Length: 1000"))
            assert (await waiting.answer(LONG)).status == 408
            assert (await streaming.is_cut(LONG)).startswith(b"HTTP/1.1 200")
        assert not [line for line in worker.lines if "Traceback" in line]


async def test_a_body_that_is_not_what_its_framing_says_is_a_bad_request_at_once(make_app: MakeApp) -> None:
    head = request("POST", "/v1/jobs", "Content-Type: application/json", "Transfer-Encoding: chunked")
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0") as worker:
        port = await worker.port()
        for at_once in (True, False):
            async with await connect(port) as connection:
                connection.send(head + b"1\r\n{\r\n" if not at_once else head + b"1\r\n{\r\nzz\r\n")
                if not at_once:
                    await connection.writer.drain()
                    await worker.get("/livez")  # so that the worker has seen the first part
                    connection.send(b"zz\r\n")
                assert (await connection.answer(9)).status == 400
        assert not [line for line in worker.lines if "Traceback" in line]


# --- many bodies ---------------------------------------------------------------------------------


@pytest.mark.more
async def test_what_is_held_of_all_unfinished_bodies_has_a_bound(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "1", "--max-connections", "400")
    async with RunningWorker(make_app(NOOP), *options) as worker, AsyncExitStack() as stack:
        port = await worker.port()
        before = resident_mb(worker.pid)
        body = b'{"metadata":"' + b"x" * (MIB - 100)
        connections = []
        for _ in range(200):
            connections.append(connection := await stack.enter_async_context(await connect(port)))
            connection.send(post(MIB) + body)
            await connection.writer.drain()
        assert (await worker.post()).status == 201  # a small body finds room
        assert peak_mb(worker.pid) - before < 160
        answers = await asyncio.gather(*(connection.answer(LONG) for connection in connections))
        refused = [answer for answer in answers if answer.status == 503]
        assert {answer.error["type"] for answer in refused} == {"too_many_bodies"}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert {answer.status for answer in answers} == {408, 503}
        assert (await worker.post("x" * 200_000)).status == 201
        assert not [line for line in worker.lines if "Traceback" in line]


async def test_requests_behind_one_that_lasts_are_held_within_the_same_bound(make_app: MakeApp) -> None:
    source = "@app.entrypoint\nasync def entrypoint(ctx):\n    await asyncio.sleep(3600)\n"
    async with RunningWorker(make_app(source), "--num-idle-processes", "1") as worker, AsyncExitStack() as stack:
        job = await worker.start(None)
        port = await worker.port()
        before = resident_mb(worker.pid)
        ahead = request("GET", f"/v1/jobs/{job['id']}?wait=600")
        pile = (post(100_000) + bytes(100_000)) * 100
        connections = [await stack.enter_async_context(await connect(port)) for _ in range(60)]
        for connection in connections:
            connection.send(ahead + pile)
        for _ in range(50):
            await worker.get("/livez")
        assert peak_mb(worker.pid) - before < 160
        assert (await worker.ask("DELETE", f"/v1/jobs/{job['id']}")).status == 202
        assert not [line for line in worker.lines if "Traceback" in line]


async def test_heads_without_an_end_are_held_within_the_same_bound(make_app: MakeApp) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 8000) for number in range(110))
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0") as worker, AsyncExitStack() as stack:
        port = await worker.port()
        before = resident_mb(worker.pid)
        for _ in range(200):
            connection = await stack.enter_async_context(await connect(port))
            connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + lines)
            with suppress(ConnectionError):
                await connection.writer.drain()
        assert (await worker.get("/livez")).status == 200
        assert peak_mb(worker.pid) - before < 160


async def test_requests_in_a_row_are_answered_in_a_row(make_app: MakeApp) -> None:
    """Without waiting for answers, some with bodies, over and over: nothing of it is counted twice or for ever."""
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", "--rate-limit", "off") as worker:
        port = await worker.port()
        one = request("GET", "/livez") + request("GET", "/nowhere", "Content-Length: 100000") + bytes(100_000)
        async with await connect(port) as connection:
            for _ in range(40):
                connection.send(one * 20)
                for _ in range(20):
                    assert (await connection.answer()).status == 200
                    assert (await connection.answer()).status == 404


async def test_http_1_0_stays_or_goes_as_its_client_says(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "1") as worker:
        port = await worker.port()
        async with await connect(port) as connection:
            for _ in range(3):
                connection.send(request("GET", "/livez", "Connection: keep-alive", version="1.0"))
                assert (await connection.answer()).status == 200
            connection.send(request("GET", "/livez", version="1.0"))
            assert (await connection.answer()).status == 200
            assert await connection.is_cut() == b""


async def test_trailers_and_an_upgrade_that_is_not_made_are_harmless(make_app: MakeApp) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
    chunked = request("POST", "/v1/jobs", "Content-Type: application/json", "Transfer-Encoding: chunked", "Trailer: X")
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "1") as worker:
        port = await worker.port()
        async with await connect(port) as connection:
            connection.send(chunked + b"2\r\n{}\r\n0\r\nX: y\r\n\r\n")
            assert (await connection.answer()).status == 201
            for _ in range(3):
                connection.send(request("GET", "/livez", *upgrade))
                assert (await connection.answer()).status == 200
            connection.send(request("GET", "/livez", *upgrade) + request("GET", "/nowhere"))
            assert [(await connection.answer()).status for _ in range(2)] == [200, 404]


# --- answers that nobody reads -------------------------------------------------------------------


@pytest.mark.more
async def test_large_answers_that_are_not_read_are_held_within_a_bound_and_cut(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(LARGE), "--num-idle-processes", "1") as worker, AsyncExitStack() as stack:
        job = await worker.start(None)
        await worker.until("/v1/jobs?state=ended", lambda answer: answer.body["jobs"])
        port = await worker.port()
        before = resident_mb(worker.pid)
        connections = [await stack.enter_async_context(await connect(port, receive_buffer=1 << 16)) for _ in range(40)]
        for connection in connections:
            connection.send(request("GET", f"/v1/jobs/{job['id']}"))
        statuses = []
        for connection in connections:
            async with asyncio.timeout(LONG):
                statuses.append(int((await connection.reader.readline()).split()[1]))
        assert set(statuses) == {200, 503}
        assert peak_mb(worker.pid) - before < 500
        unread = connections[statuses.index(200)]
        unread.writer.transport.pause_reading()  # type: ignore[attr-defined]
        fd_count = len(os.listdir(f"/proc/{worker.pid}/fd"))
        async with asyncio.timeout(LONG):
            while len(os.listdir(f"/proc/{worker.pid}/fd")) > fd_count - statuses.count(200):
                await asyncio.sleep(0.05)
        assert len((await worker.ask("GET", f"/v1/jobs/{job['id']}")).body["report"]["result"]) == 30 * MIB


async def test_a_large_answer_comes_whole(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(LARGE), "--num-idle-processes", "1") as worker:
        job = await worker.start(None)
        report = await worker.report(job["id"])
        assert report["result"] == "x" * 30 * MIB
