"""What is turned down, and how it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from faults.stage import Stage
from running_worker import Answer, RunningWorker
from support import DEADLINE

MakeApp = Callable[[str], str]

NOOP = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""
JSON = {"Content-Type": "application/json"}

BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, "bad_json"),
    (b"{", 400, "bad_json"),
    (b"{} x", 400, "bad_json"),
    (b'{"metadata": NaN}', 400, "bad_json"),
    (b'{"metadata": "\xff"}', 400, "bad_json"),
    (b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "bad_json"),
    (b"[]", 400, "wrong_type"),
    (b'"text"', 400, "wrong_type"),
    (b'{"metdata": 1}', 400, "wrong_type"),
    (b'{"id": 5}', 400, "wrong_type"),
    (b'{"id": ""}', 400, "wrong_type"),
    (b'{"id": "../etc"}', 400, "wrong_type"),
    (b'{"id": "' + b"x" * 129 + b'"}', 400, "wrong_type"),
    (b'{"timeout": "5"}', 400, "wrong_type"),
    (b'{"timeout": 0}', 400, "wrong_type"),
    (b'{"timeout": 1e999}', 400, "wrong_type"),
    (b'{"metadata": "' + b"x" * 300_000 + b'"}', 413, "too_large"),
]


def _is_error(answer: Answer, status: int, kind: str) -> bool:
    return (answer.status, answer.error["type"]) == (status, kind) and bool(answer.error["message"])


async def test_errors_are_typed(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "1", "--max-request-bytes", "250000")
    async with RunningWorker(make_app(NOOP), *options) as worker:
        for body, status, kind in BODIES:
            answer = await worker.ask("POST", "/v1/jobs", data=body, headers=JSON)
            assert _is_error(answer, status, kind), (body[:40], answer)
        requests: list[tuple[str, str, dict[str, Any], int, str]] = [
            ("POST", "/v1/jobs", {"data": b"{}"}, 415, "not_json"),
            ("POST", "/v1/jobs", {"data": {"metadata": "form"}}, 415, "not_json"),
            ("POST", "/v1/jobs", {"data": b"{}", "headers": {**JSON, "Content-Encoding": "gzip"}}, 415, "encoded_body"),
            ("GET", "/v1/jobs/nobody", {}, 404, "unknown_job"),
            ("DELETE", "/v1/jobs/nobody", {}, 404, "unknown_job"),
            ("GET", "/v2/jobs", {}, 404, "not_found"),
            ("PUT", "/v1/jobs", {}, 405, "method_not_allowed"),
            ("GET", "/v1/pool", {"headers": {"Host": "attacker.example"}}, 403, "wrong_host"),
            ("GET", "/v1/pool", {"headers": {"Host": "127.0.0.1.attacker.example"}}, 403, "wrong_host"),
        ]
        for method, path, request, status, kind in requests:
            assert _is_error(await worker.ask(method, path, **request), status, kind), (method, path)
        job = await worker.start(id="call")
        await worker.report(job["id"])
        for wait in ("-1", "soon", "nan", "inf"):
            assert _is_error(await worker.get(f"/v1/jobs/call?wait={wait}"), 400, "wrong_type")
        assert [one["id"] for one in (await worker.get("/v1/jobs")).body["jobs"]] == ["call"]
        assert (await worker.get("/livez")).status == 200
        assert not [line for line in worker.lines if "Traceback" in line]


async def test_W6_a_full_worker_says_so_and_when_to_come_back(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        RunningWorker(stage.app(), "--num-idle-processes", "1", "--max-jobs", "1") as worker,
    ):
        assert (await worker.get("/readyz")).body == {"ready": True}
        job = await worker.start("stay")
        answer = await worker.post()
        assert _is_error(answer, 503, "no_capacity")
        assert answer.error["reason"] == "full"
        assert int(answer.headers["Retry-After"]) >= 1
        ready = await worker.get("/readyz")
        assert (ready.status, ready.body["reason"]) == (503, "full")
        (await stage.next("job")).order("leave")
        await worker.report(job["id"])
        await worker.until("/readyz", lambda answer: answer.status == 200)
        await worker.start()


async def test_W6_readiness_names_the_cause_when_nothing_becomes_warm(make_app: MakeApp) -> None:
    source = f"""
@app.prewarm
def prewarm(proc):
    raise RuntimeError("no model")
{NOOP}"""
    async with RunningWorker(make_app(source), "--num-idle-processes", "1") as worker:
        ready = await worker.until("/readyz", lambda answer: answer.body.get("reason") == "breaker_open")
        assert ready.status == 503
        assert "no model" in ready.body["detail"]
        answer = await worker.post()
        assert (answer.status, answer.error["reason"]) == (503, "breaker_open")
        assert "no model" in answer.error["message"]
        assert int(answer.headers["Retry-After"]) >= 1


async def test_W6_a_worker_without_idle_processes_is_ready(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0") as worker:
        assert (await worker.get("/readyz")).status == 200
        assert (await worker.start())["launch_type"] == "cold"


async def test_clients_of_events_that_go_at_once_leave_their_place_and_no_traceback(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "1", "--rate-limit", "off") as worker:
        port = await worker.port()
        for _ in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await writer.drain()
            writer.close()
        async with asyncio.timeout(DEADLINE):
            while not (await _first_line_of_events(port)).startswith(b"HTTP/1.1 200"):
                await asyncio.sleep(0.01)
        assert not [line for line in worker.lines if "Traceback" in line]


RAW: list[tuple[bytes, int]] = [
    (b"\0" * 100, 400),
    (b"GET / HTTP/9.9\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\xff\xed: x\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nExpect: cake\r\nConnection: close\r\n\r\n", 417),
    (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nExpect: cake\r\nConnection: close\r\n\r\n", 417),
    (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nExpect: \xff\xed\r\nConnection: close\r\n\r\n", 417),
    (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nExpect: \xff\xed\r\nConnection: close\r\n\r\n", 417),
]


async def test_what_comes_to_no_handler_is_answered_in_the_same_form(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0") as worker:
        port = await worker.port()
        for request, status in RAW:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert head.split()[1] == b"%d" % status, (request[:60], head)
            assert b"Content-Type: application/json" in head, request[:60]
            error = json.loads(body)["error"]
            assert error["type"] == "bad_request"
            assert error["message"].isprintable()
        assert (await worker.get("/livez")).status == 200
        assert not [line for line in worker.lines if "Traceback" in line]


async def _first_line_of_events(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return line
