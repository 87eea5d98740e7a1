"""The pool by HTTP, and what is told of it: resize, reload, drain, pressure, events, metrics, the document."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from faults.stage import Stage
from prometheus_client.parser import text_string_to_metric_families
from running_worker import RunningWorker
from support import DEADLINE, kill

MakeApp = Callable[[str], str]

ECHO = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""
EMPTY: dict[str, Any] = {"json": {}}


class EventStream:
    """The server-sent events of a worker, as they come."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    async def next(self, name: str, **wanted: Any) -> dict[str, Any]:
        """The next event of that name, with these values in it."""
        async with asyncio.timeout(DEADLINE):
            while True:
                kind, data = await self._frame()
                if kind == name and all(data.get(key) == value for key, value in wanted.items()):
                    return data

    async def _frame(self) -> tuple[str, dict[str, Any]]:
        name, data = "", ""
        while line := (await self._content.readline()).decode().rstrip("\n"):
            field, _, value = line.partition(": ")
            name = value if field == "event" else name
            data += value if field == "data" else ""
        assert data, "the stream has ended"
        return name, json.loads(data)


@asynccontextmanager
async def events_of(worker: RunningWorker) -> AsyncIterator[EventStream]:
    url = f"{await worker.url()}/v1/events"
    async with aiohttp.ClientSession(read_bufsize=1 << 22) as session, session.get(url) as response:
        assert response.content_type == "text/event-stream"
        yield EventStream(response.content)


async def metric(worker: RunningWorker, name: str, **labels: str) -> float:
    """A sample's value; 0 if it is not there yet."""
    text = (await worker.fetch("GET", "/metrics")).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return 0.0


async def test_resize_holds_more_and_fewer(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(ECHO), "--num-idle-processes", "1") as worker:
        answer = await worker.ask("POST", "/v1/pool/resize", json={"num_idle_processes": 4})
        assert (answer.status, answer.body) == (200, {"num_idle_processes": 4, "max_idle_processes": 8})
        await worker.until("/v1/pool", lambda answer: answer.body["idle"] == 4)
        await worker.ask("POST", "/v1/pool/resize", json={"num_idle_processes": 0, "max_idle_processes": 0})
        await worker.until("/v1/pool", lambda answer: answer.body["processes"] == [])
        wrong = await worker.ask("POST", "/v1/pool/resize", json={"num_idle_processes": 3, "max_idle_processes": 2})
        assert (wrong.status, wrong.error["type"]) == (409, "wrong_size")
        for body in ({}, {"num_idle_processes": -1}, {"num_idle_processes": 1.5}, {"num_idle_processes": "2"}):
            assert (await worker.ask("POST", "/v1/pool/resize", json=body)).status == 400


async def test_S6_a_reload_is_answered_with_what_came_of_it(make_app: MakeApp) -> None:
    app = make_app(ECHO)
    file = Path(app.partition(":")[0])
    async with RunningWorker(app, "--num-idle-processes", "1") as worker, events_of(worker) as events:
        answer = await worker.ask("POST", "/v1/pool/reload", **EMPTY)
        assert (answer.status, answer.body) == (200, {"generation": 2})
        assert (await events.next("Reloaded"))["generation"] == 2
        good = file.read_text()
        file.write_text("import no_such_module\n")
        broken = await worker.ask("POST", "/v1/pool/reload", **EMPTY)
        assert (broken.status, broken.error["type"]) == (409, "reload_failed")
        assert "no_such_module" in broken.error["message"]
        assert "no_such_module" in (await events.next("ReloadFailed"))["cause"]
        assert (await worker.start("still here"))["launch_type"] == "warm"
        file.write_text(good)
        assert (await worker.ask("POST", "/v1/pool/reload", **EMPTY)).status == 200
        assert await metric(worker, "greenroom_reloads_total", result="failed") == 1
        assert await metric(worker, "greenroom_reloads_total", result="succeeded") == 2


async def test_S5_a_drain_by_http_is_what_sigterm_does(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(), "--num-idle-processes", "1") as worker:
        job = await worker.start("stay")
        visit = await stage.next("job")
        answer = await worker.ask("POST", "/v1/pool/drain", json={"timeout": 1000})
        assert (answer.status, answer.body) == (202, {"jobs": 1, "timeout": 1000.0})
        refused = await worker.post()
        assert (refused.status, refused.error["reason"]) == (503, "draining")
        assert (await worker.get("/readyz")).body["reason"] == "draining"
        reporting = await worker.report_to_come(job["id"])
        visit.order("leave")
        assert (await reporting)["outcome"] == "succeeded"
        assert await worker.ends() == 0


async def test_pressure_counts_slots_and_what_was_turned_down(make_app: MakeApp) -> None:
    options = ["--num-idle-processes", "1", "--max-jobs", "1"]
    async with Stage(make_app) as stage, RunningWorker(stage.app(), *options) as worker:
        calm = (await worker.get("/pressure")).body
        assert (calm["accepting"], calm["running"], calm["free"], calm["idle"]) == (True, 0, 1, 1)
        await worker.start("stay")
        for _ in range(3):
            assert (await worker.post()).error["reason"] == "full"
        full = (await worker.get("/pressure")).body
        assert (full["accepting"], full["reason"], full["running"], full["free"]) == (False, "full", 1, 0)
        assert full["turned_down"] == {"seconds": 60.0, "total": 3, "by_reason": {"full": 3}}
        assert full["sources"] == {"http": {"state": "open"}, "livekit": {"state": "off"}}
        assert await metric(worker, "greenroom_turned_down_total", source="http", reason="full") == 3
        assert await metric(worker, "greenroom_ready") == 0
        (await stage.next("job")).order("leave")
        await worker.until("/pressure", lambda answer: answer.body["accepting"])


async def test_page_metrics_and_report_tell_one_story_of_a_kill(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(), "--num-idle-processes", "2") as worker:
        async with events_of(worker) as events:
            board = await events.next("board")
            assert {process["state"] for process in board["processes"]} == {"idle"}
            job = await worker.start("stay", id="call")
            accepted = await events.next("JobAccepted", job_id="call")
            assert (accepted["source"], accepted["launch_type"]) == ("http", "warm")
            started = await events.next("JobStarted", job_id="call")
            assert (started["pid"], started["launch_type"]) == (job["pid"], "warm")
            visit = await stage.next("job")
            kill(visit.pid, signal.SIGKILL)
            ended = await events.next("ProcessEnded")
            told = await events.next("JobEnded")
        report = await worker.report("call")
        for shown in (ended["report"], told["report"], report):
            assert (shown["outcome"], shown["reason"], shown["signal"]) == ("killed", "signaled", signal.SIGKILL)
            assert shown["detail"] == report["detail"]
        (session,) = (await worker.get("/v1/board")).body["sessions"]
        assert (session["outcome"], session["reason"]) == ("killed", "signaled")
        exits = {"outcome": "killed", "reason": "signaled", "had_job": "true"}
        assert await metric(worker, "greenroom_exits_total", **exits) == 1
        assert await metric(worker, "greenroom_claim_seconds_count", launch_type="warm") == 1
        assert await metric(worker, "greenroom_session_seconds_count", source="http") == 1
        await worker.logs(r"job call\) killed: signaled")


async def test_the_zygotes_death_is_told_everywhere(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(ECHO), "--num-idle-processes", "1") as worker, events_of(worker) as events:
        zygote = (await worker.get("/v1/pool")).body["zygote_pid"]
        kill(zygote)
        assert (await events.next("ZygoteLost"))["pid"] == zygote
        replaced = await events.next("ZygoteStarted")
        assert replaced["pid"] not in (None, zygote)
        assert await metric(worker, "greenroom_zygote_restarts_total") == 1
        await worker.until("/v1/pool", lambda answer: answer.body["zygote_restarts"] == 1)
        assert (await worker.start())["state"] in ("running", "draining", "ending", "ended")


async def test_lists_are_narrowed_down(make_app: MakeApp) -> None:
    source = ECHO.replace("return ctx.job.metadata", "raise ValueError('no')\n    return 1 / ctx.job.metadata")
    async with RunningWorker(make_app(source), "--num-idle-processes", "2") as worker:
        for number in range(3):
            await worker.report((await worker.start(number, id=f"call-{number}"))["id"])

        async def ids(query: str) -> list[str]:
            return [job["id"] for job in (await worker.get(f"/v1/jobs?{query}")).body["jobs"]]

        assert await ids("") == ["call-0", "call-1", "call-2"]
        assert await ids("limit=2") == ["call-1", "call-2"]
        assert await ids("state=ended&outcome=failed&reason=raised&limit=1") == ["call-2"]
        assert await ids("state=live") == await ids("outcome=succeeded") == []
        for query in ("state=nonsense", "limit=0", "limit=x", "colour=red", "outcome="):
            assert (await worker.get(f"/v1/jobs?{query}")).status == 400, query


async def test_a_slow_reader_of_events_holds_up_nobody(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(ECHO), "--num-idle-processes", "2", "--rate-limit", "off") as worker:
        _, writer = await asyncio.open_connection("127.0.0.1", await worker.port(), limit=1024)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")  # and nothing is ever read
        for number in range(60):
            await worker.start("x" * 50_000, id=f"call-{number}", timeout=DEADLINE)
        assert (await worker.get("/pressure")).status == 200
        writer.close()


async def test_streams_end_when_the_worker_does(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(ECHO), "--num-idle-processes", "1") as worker, events_of(worker) as events:
        await events.next("board")
        worker.signal(signal.SIGTERM)
        await events.next("Draining")
        assert await worker.ends() == 0


async def test_W4_the_app_turns_sessions_down_by_http(make_app: MakeApp) -> None:
    source = (
        ECHO
        + """
@app.request
async def request(request):
    if request.job.metadata == "hang":
        await asyncio.Event().wait()
    if request.job.metadata == "raise":
        raise LookupError("no such caller")
    return request.source == "http" and request.job.metadata == "fine"
"""
    )
    options = ["--num-idle-processes", "2", "--request-timeout", "2"]
    async with RunningWorker(make_app(source), *options) as worker:
        for metadata, told in (("no", "rejected it"), ("raise", "no such caller"), ("hang", "did not answer")):
            answer = await worker.post(metadata)
            assert (answer.status, answer.error["reason"]) == (403, "rejected_by_app")
            assert told in answer.error["message"]
        assert (await worker.start("fine", timeout=DEADLINE))["pid"]
        assert await metric(worker, "greenroom_turned_down_total", reason="rejected_by_app") == 3
        assert (await worker.get("/v1/jobs?outcome=failed")).body["jobs"] == []


async def test_the_machines_memory_is_counted(make_app: MakeApp) -> None:
    """Admission by memory: no session is taken that would leave less free than is to stay free."""
    async with RunningWorker(make_app(ECHO), "--num-idle-processes", "1", "--min-free-memory-mb", "1e8") as worker:
        ready = await worker.until("/readyz", lambda answer: answer.body.get("reason") == "memory")
        assert "min_free_memory_mb" in ready.body["detail"]
        answer = await worker.post()
        assert (answer.status, answer.error["reason"]) == (503, "memory")
        assert (await worker.get("/pressure")).body["reason"] == "memory"
