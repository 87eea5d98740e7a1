"""HTTP to the letter: host names, origins, ids, HEAD, and half-closed connections."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from faults.stage import PLAIN, Stage
from hypothesis import given
from hypothesis import strategies as st
from running_worker import RunningWorker
from support import DEADLINE, eventually

from greenroom.server.web.hosts import host_name

MakeApp = Callable[[str], str]

TOKEN = "correct-horse-battery-staple"
NOOP = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""
SLOW_TO_WARM = f"""
@app.prewarm
async def prewarm(proc):
    await on_stage("prewarm")
{PLAIN}"""


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes; return all that comes back until the worker closes the connection."""
    async with connected(port) as (reader, writer):
        writer.write(request)
        return await reader.read()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(DEADLINE):
            yield reader, writer
    finally:
        writer.close()


def request_of(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


def status_of(answer: bytes) -> int:
    return int(answer.split()[1])


def error_of(answer: bytes) -> str:
    kind: str = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"]
    return kind


# --- host names ----------------------------------------------------------------------------------

LOCAL = [
    "localhost",
    "LocalHost",
    "localhost.",
    "localhost:1",
    "localhost.:8700",
    "localhost:",
    "127.0.0.1",
    "127.0.0.1:65535",
    "[::1]",
    "[::1]:8700",
    "[0:0:0:0:0:0:0:1]",
]
FOREIGN = [
    "",
    ":8700",
    "evil.com",
    "evil.com@localhost",
    "evil.com@localhost:8700",
    "user:password@127.0.0.1",
    "@localhost",
    "localhost@evil.com",
    "localhost/",
    "localhost/evil.com",
    "evil.com/@localhost",
    "evil.com?@localhost",
    "evil.com#@localhost",
    "localhost#evil.com",
    "evil.com\\@localhost",
    "localhost\\",
    "localhost\\.evil.com",
    "localhost\tevil.com",
    "localhost evil.com",
    "localhost, evil.com",
    "localhost.evil.com",
    "evil.localhost",
    "localhost..",
    ".localhost",
    "localhost:x",
    "localhost:65536",
    "localhost:-1",
    "localhost:+1",
    "localhost:1:2",
    "localhost:\u0661",
    "localhost\udcff",
    "%6cocalhost",
    "ｌocalhost",
    "127.0.0.1.evil.com",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "127.0.0.01",
    "::1",
    "::1:8700",
    "[::1",
    "::1]",
    "[::1]evil.com",
    "[::1%25lo]",
    "[localhost]",
    "[127.0.0.1]",
    "[::1].",
    "http://localhost",
]


async def test_only_a_local_host_name_opens_a_worker_without_a_token(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", "--rate-limit", "off") as worker:
        port = await worker.port()
        for host in LOCAL:
            assert status_of(await exchange(port, request_of("/v1/pool", f"Host: {host}"))) == 200, host
        for host in FOREIGN:
            for path in ("/v1/pool", "/livez", "/", "/nowhere"):
                answer = await exchange(port, request_of(path, f"Host: {host}"))
                assert (status_of(answer), error_of(answer)) == (403, "wrong_host"), (host, path)


async def test_a_request_has_one_host_and_its_target_names_no_other(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", "--rate-limit", "off") as worker:
        port, local = await worker.port(), "Host: localhost"
        for headers in ([], [local, local], [local, "Host: evil.com"], ["Host: evil.com", local]):
            assert status_of(await exchange(port, request_of("/v1/pool", *headers))) == 400, headers
        without = await exchange(port, request_of("/v1/pool", version="1.0"))
        assert (status_of(without), error_of(without)) == (403, "wrong_host")
        for host in ("localhost", "127.0.0.1:1", "LOCALHOST."):
            assert status_of(await exchange(port, request_of(f"http://{host}/v1/pool", local))) == 200, host
        for host in ("evil.com", "evil.com@localhost", "localhost@evil.com", "localhost:x", "[::1]x"):
            answer = await exchange(port, request_of(f"http://{host}/v1/pool", local))
            assert (status_of(answer), error_of(answer)) in ((403, "wrong_host"), (400, "bad_request")), host
        for target in ("http://localhost/v1/pool", "http://localhost/livez"):
            answer = await exchange(port, request_of(target, "Host: evil.com"))
            assert (status_of(answer), error_of(answer)) == (403, "wrong_host")
        for target in ("*", "v1/pool", "localhost:80", "ftp://localhost/v1/pool", "/v1/pool\t", "/v1/ pool"):
            assert status_of(await exchange(port, request_of(target, local))) == 400, target
        for target in ("//v1/pool", "/v1\\pool", "/livez/../v1/pool", "/page/../v1/pool"):
            assert status_of(await exchange(port, request_of(target, local))) == 404, target
        for method in ("OPTIONS", "CONNECT"):
            target = "*" if method == "OPTIONS" else "localhost:80"
            assert status_of(await exchange(port, request_of(target, local, method=method))) in (400, 404, 405)


async def test_no_target_takes_a_locked_path_for_an_open_one(make_app: MakeApp) -> None:
    environment = {**os.environ, "GREENROOM_TOKEN": TOKEN}
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", env=environment) as worker:
        port = await worker.port()
        for target in (
            "/v1/pool",
            "/v1/%70ool",
            "/livez/../v1/pool",
            "/livez%2f..%2fv1%2fpool",
            "/v1/jobs/..%2f..%2flivez",
            "/v1/jobs/%2e%2e",
            "http://localhost/v1/pool",
            "//livez",
            "/v1/pool?/livez",
            "/v1/pool?=/livez",
            "/v1/pool;/livez",
        ):
            answer = await exchange(port, request_of(target, "Host: worker.example"))
            assert status_of(answer) == 401, target
        two = [f"Authorization: Bearer {TOKEN}", "Authorization: Bearer x"]
        for headers in (two, two[::-1]):
            assert status_of(await exchange(port, request_of("/v1/pool", "Host: a", *headers))) in (400, 401)
        assert status_of(await exchange(port, request_of("/v1/pool", "Host: a", two[0]))) == 200


@pytest.mark.parametrize("host", LOCAL)
def test_names_of_hosts(host: str) -> None:
    assert host_name(host) in ("localhost", "127.0.0.1", "::1")


@given(st.text("localhst127.0:[]@/\\ \t\n.%", max_size=14))
def test_a_host_is_its_name_and_its_port_and_nothing_else(text: str) -> None:
    name = host_name(text)
    if name is not None:
        assert text.lower().startswith((name, "["))
        assert not set(name) & set("@/\\ \t\n%[]")


# --- origins -------------------------------------------------------------------------------------

OF_ANOTHER_SITE = [
    {"Origin": "http://evil.com"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost:1"},
    {"Origin": "http://127.0.0.1.evil.com"},
    {"Origin": "http://evil.com", "X-Forwarded-Host": "calls.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "Same-Origin, cross-site"},
]
SIMPLE = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None]
CHANGES = [
    ("POST", "/v1/jobs"),
    ("POST", "/v1/pool/resize"),
    ("POST", "/v1/pool/reload"),
    ("POST", "/v1/pool/drain"),
    ("DELETE", "/v1/jobs/any"),
]


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_no_page_of_another_site_reaches_the_worker(make_app: MakeApp, token: str | None) -> None:
    """With a token, too: a proxy may add it to whatever comes."""
    environment = {**os.environ} | ({} if token is None else {"GREENROOM_TOKEN": token})
    added = {} if token is None else {"Authorization": f"Bearer {token}"}
    options = ["--num-idle-processes", "0", "--rate-limit", "off"]
    async with RunningWorker(make_app(NOOP), *options, env=environment) as worker:
        for headers in OF_ANOTHER_SITE:
            for method, path in [*CHANGES, ("GET", "/v1/events"), ("GET", "/v1/pool"), ("HEAD", "/v1/pool")]:
                body = {"json": {}} if method == "POST" else {}
                answer = await worker.fetch(method, path, headers={**headers, **added}, **body)
                assert answer.status == 403, (headers, method, path)
                assert method == "HEAD" or answer.error["type"] == "wrong_origin"
            for path in ("/livez", "/", "/page/page.js"):  # which tell nothing
                assert (await worker.fetch("GET", path, headers=headers)).status == 200
        assert (await worker.ask("GET", "/v1/jobs", headers=added)).body["jobs"] == []


async def test_the_worker_s_own_page_and_programs_are_no_other_site(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "1", "--rate-limit", "off") as worker:
        own = await worker.url()
        for headers in (
            {},
            {"Origin": own},
            {"Origin": own.upper().replace("HTTP", "http")},
            {"Origin": "https://calls.example", "X-Forwarded-Host": "calls.example"},
            {"Origin": "http://calls.example:8080", "X-Forwarded-Host": "calls.example:8080"},
            {"Origin": "https://calls.example", "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
        ):
            assert (await worker.ask("POST", "/v1/jobs", json={"timeout": 20}, headers=headers)).status == 201, headers
        followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert (await worker.fetch("GET", "/v1/board", headers=followed)).status == 200  # a link in a handbook
        assert (await worker.fetch("POST", "/v1/jobs", json={}, headers=followed)).status == 403  # a form


async def test_what_a_page_can_send_unasked_is_no_order(make_app: MakeApp) -> None:
    """By its media type alone: an old browser says nothing of the page's origin."""
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", "--rate-limit", "off") as worker:
        port = await worker.port()
        for method, path in CHANGES:
            for kind in SIMPLE if method == "POST" else []:
                headers = ["Host: localhost", "Content-Length: 2", *([f"Content-Type: {kind}"] if kind else [])]
                answer = await exchange(port, request_of(path, *headers, method=method) + b"{}")
                assert (status_of(answer), error_of(answer)) == (415, "not_json"), (path, kind)
            preflight = ["Host: localhost", "Origin: http://evil.com", f"Access-Control-Request-Method: {method}"]
            answer = await exchange(port, request_of(path, *preflight, method="OPTIONS"))
            assert status_of(answer) >= 400
            assert b"access-control-allow" not in answer.lower()
        assert (await worker.get("/v1/jobs")).body["jobs"] == []


# --- ids -----------------------------------------------------------------------------------------


async def test_a_job_s_id_ends_where_it_ends(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "1") as worker:
        await worker.start(id="good")
        line_ends = ("evil\n", "evil\r\n", "evil\r", "\nevil", "evil\n\n", "evil\u2028")
        for job_id in (*line_ends, "evil ", " evil", "evil\0", ""):
            answer = await worker.post(id=job_id)
            assert (answer.status, answer.error["type"]) == (400, "wrong_type"), job_id
        assert [job["id"] for job in (await worker.get("/v1/jobs")).body["jobs"]] == ["good"]


# --- HEAD ----------------------------------------------------------------------------------------


async def test_HEAD_is_answered_at_once_with_headers_alone(make_app: MakeApp, tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}  # or /metrics/jobs is 404
    options = ("--num-idle-processes", "1")
    async with Stage(make_app) as stage, RunningWorker(stage.app(), *options, env=environment) as worker:
        job = await worker.start("stay")
        await stage.next("job")
        document = (await worker.get("/openapi.json")).body
        paths = [path for path, ways in document["paths"].items() if "get" in ways]
        assert "/v1/events" in paths
        async with connected(await worker.port()) as (reader, writer):
            for path in [*paths, "/openapi.json", "/v1/jobs/{id}?wait=600", "/v1/jobs/nobody?wait=600"]:
                target = path.replace("{id}", job["id"])
                writer.write(f"HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                expected = 404 if "nobody" in path else 503 if path == "/readyz" and b" 503 " in head else 200
                assert status_of(head) == expected, path
                kind = "event-stream" if path == "/v1/events" else ""
                assert kind.encode() in head
            # All on one connection: not a byte came after any of the headers.
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        async with connected(await worker.port()) as (reader, writer):
            writer.write(b"HEAD /v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert (await reader.read()).endswith(b"\r\n\r\n")


async def test_no_proxy_keeps_the_events(make_app: MakeApp) -> None:
    async with (
        RunningWorker(make_app(NOOP), "--num-idle-processes", "0") as worker,
        connected(await worker.port()) as (reader, writer),
    ):
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nx-accel-buffering: no\r\n" in head.lower()
        assert b"\r\ncache-control: no-store" in head.lower()


# --- half-closed connections -----------------------------------------------------------------------


async def test_a_half_closed_client_gets_its_answers(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "1") as worker:
        await worker.logs("serving")
        port, host = await worker.port(), "Host: localhost"
        body = json.dumps({"id": "call", "metadata": "x" * 100_000, "timeout": 20})
        order = [host, "Content-Type: application/json", f"Content-Length: {len(body)}"]
        kept = b"GET /v1/jobs?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for request, statuses in [
            (request_of("/livez", host), [200]),
            (request_of("/livez", host, version="1.0"), [200]),
            (request_of("/nowhere", host), [404]),
            (kept, [200]),  # which would be kept open, if the client had not closed it
            (request_of("/v1/jobs", *order, method="POST") + body.encode(), [201]),
            (kept * 3, [200] * 3),
            (kept + kept.replace(b"?limit=1", b"/call?wait=20") + kept, [200] * 3),
            (b"nonsense\r\n\r\n", [400]),
        ]:
            async with connected(port) as (reader, writer):
                writer.write(request)
                writer.write_eof()
                answer = await reader.read()
            found = [int(part[:3]) for part in re.split(rb"HTTP/1\.[01] ", answer)[1:]]
            assert found == statuses, (request[:60], answer[:300])
        assert not [line for line in worker.lines if "Traceback" in line]


async def test_a_half_closed_client_gets_the_answer_that_it_waits_for(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(), "--num-idle-processes", "1") as worker:
        job = await worker.start("stay")
        visit = await stage.next("job")
        async with connected(await worker.port()) as (reader, writer):
            writer.write(request_of(f"/v1/jobs/{job['id']}?wait=60", "Host: localhost"))
            writer.write_eof()
            begun = await reader.read(1)  # the worker makes sure that somebody is there: its answer has begun
            visit.order("leave")
            answer = begun + await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["report"]["outcome"] == "succeeded"


async def test_a_half_closed_client_gets_its_session(make_app: MakeApp) -> None:
    options = ["--num-idle-processes", "0", "--offer-timeout", "20"]
    async with Stage(make_app) as stage, RunningWorker(stage.app(SLOW_TO_WARM), *options) as worker:
        async with connected(await worker.port()) as (reader, writer):
            order = ["Host: localhost", "Content-Type: application/json", "Content-Length: 28"]
            writer.write(request_of("/v1/jobs", *order, method="POST") + b'{"id":"1","metadata":"stay"}')
            writer.write_eof()
            (await stage.next("prewarm")).order("warm")
            assert (await reader.read()).startswith(b"HTTP/1.1 201 Created\r\n")
        visit = await stage.next("job")
        assert [job["state"] for job in (await worker.get("/v1/jobs")).body["jobs"]] == ["running"]
        visit.order("leave")


async def test_a_half_closed_client_reads_events(make_app: MakeApp) -> None:
    async with (
        RunningWorker(make_app(NOOP), "--num-idle-processes", "1", "--rate-limit", "off") as worker,
        connected(await worker.port()) as (reader, writer),
    ):
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        writer.write_eof()
        await reader.readuntil(b"event: board")
        await worker.start(timeout=20)
        await reader.readuntil(b"event: JobEnded")
        for _ in range(2):
            await reader.readuntil(b"event: Levels")


@pytest.mark.parametrize("how", ["close", "half, then close", "reset", "half, then reset"])
async def test_a_client_that_is_gone_is_noticed_while_its_offer_waits(make_app: MakeApp, how: str) -> None:
    options = ["--num-idle-processes", "0", "--offer-timeout", "50"]
    async with Stage(make_app) as stage, RunningWorker(stage.app(SLOW_TO_WARM), *options) as worker:
        sock = await _asked(await worker.port(), b'{"id":"1","metadata":"stay"}')
        visit = await stage.next("prewarm")
        await worker.until("/v1/pool", lambda answer: answer.body["jobs"] == 1)
        await _go(sock, how)
        await worker.until("/v1/pool", lambda answer: answer.body["jobs"] == 0)
        visit.order("warm")
        await worker.until("/v1/pool", lambda answer: answer.body["warming"] == 0)
        assert (await worker.get("/v1/jobs")).body["jobs"] == []
        assert stage.starts() == {}


@pytest.mark.parametrize("how", ["close", "half, then close", "reset", "half, then reset"])
async def test_a_client_that_is_gone_leaves_no_connection_that_waits(make_app: MakeApp, how: str) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(), "--num-idle-processes", "1") as worker:
        job = await worker.start("stay")
        visit = await stage.next("job")
        port = await worker.port()
        before = _connections(port)
        socks = []
        for _ in range(20):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(request_of(f"/v1/jobs/{job['id']}?wait=600", "Host: localhost"))
            socks.append(sock)
        await eventually(lambda: _connections(port) == before + 20, "connections")
        await asyncio.gather(*(_go(sock, how) for sock in socks))
        await eventually(lambda: _connections(port) == before, "end of the connections")
        visit.order("leave")


async def test_a_client_that_breaks_off_in_a_body_is_let_go(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0") as worker:
        order = ["Host: localhost", "Content-Type: application/json", "Content-Length: 28"]
        for request in (b"", b"GET /li", request_of("/v1/jobs", *order, method="POST") + b'{"id":'):
            async with connected(await worker.port()) as (reader, writer):
                writer.write(request)
                writer.write_eof()
                assert b" 20" not in await reader.read()
        assert (await worker.get("/v1/jobs")).body["jobs"] == []


async def test_a_worker_with_half_closed_clients_ends(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(), "--num-idle-processes", "1") as worker:
        job = await worker.start("stay")
        visit = await stage.next("job")
        async with connected(await worker.port()) as (reader, writer):
            writer.write(request_of(f"/v1/jobs/{job['id']}?wait=600", "Host: localhost"))
            writer.write_eof()
            assert await reader.read(1) == b"H"
            worker.signal(15)
            await worker.logs("draining")
            visit.order("leave")
            assert b'"succeeded"' in await reader.read()
        assert await worker.ends() == 0


async def _asked(port: int, body: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    order = ["Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    sock.sendall(request_of("/v1/jobs", *order, method="POST") + body)
    return sock


async def _go(sock: socket.socket, how: str) -> None:
    """Leave as a client does: its process ends, or it is done; or it says first that it will say no more."""
    if how.startswith("half"):
        sock.shutdown(socket.SHUT_WR)
        await asyncio.to_thread(sock.recv, 1)  # so the worker has seen it
    if how.endswith("reset"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _connections(port: int) -> int:
    """How many the worker holds at this port of its own, by the kernel's account."""
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] != "0A" and row[9] != "0" for row in rows)
