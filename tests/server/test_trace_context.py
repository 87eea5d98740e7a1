"""The trace of a session where others meet it: in the app's own spans, in the log, in its record, after a kill."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from receiver import Receiver, attributes, clean_environment, receiving
from running_worker import RunningWorker
from support import eventually

from greenroom.server.history.job_traces import KEPT, JobTrace, JobTraces
from greenroom.server.history.rows import LOST

MakeApp = Callable[[str], str]

APP = """
@app.entrypoint
async def entrypoint(ctx):
    print("hello")
    assert greenroom.Job.current() is ctx.job
    if ctx.job.metadata == "stay":
        await ctx.wait_for_shutdown()
    return ctx.job.trace_parent
"""
DOCS = Path(__file__).resolve().parents[2] / "docs" / "logs-and-traces.md"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"


async def handed(worker: RunningWorker, trace_parent: str | None) -> str | None:
    """Return the trace context that a job gets whose caller sends this one."""
    headers = {} if trace_parent is None else {"traceparent": trace_parent}
    job = (await worker.ask("POST", "/v1/jobs", json={}, headers=headers)).body
    result: str | None = (await worker.report(job["id"]))["result"]
    return result


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_spans_of_the_app_are_children_of_the_run(make_app: MakeApp, start_method: str) -> None:
    example = re.search("### Spans of the app.*?```python\n(.*?)```", DOCS.read_text(), re.S)
    assert example is not None
    async with receiving() as (receiver, environment):
        options = ("--start-method", start_method)
        async with RunningWorker(make_app(example[1]), *options, env=environment) as worker:
            order = {"json": {"id": "call", "timeout": 60}, "headers": {"traceparent": CALLER}}
            assert (await worker.ask("POST", "/v1/jobs", **order)).status == 201
            assert (await worker.report("call"))["outcome"] == "succeeded"
            await worker.start(id="own")
            await worker.report("own")
            worker.signal(signal.SIGTERM)
            assert await worker.ends() == 0
    for job_id in ("call", "own"):
        spans = receiver.of(job_id)
        assert set(spans) == {"session", "offer", "claim", "start", "run"}
        trace_id = spans["session"].trace_id
        (own,) = (span for span in receiver.spans if span.name == "conversation" and span.trace_id == trace_id)
        assert own.parent_span_id == spans["run"].span_id
        assert {span.trace_id for span in spans.values()} == {trace_id}
    assert receiver.of("call")["session"].trace_id.hex() == TRACE
    assert receiver.of("own")["session"].trace_id.hex() != TRACE


async def test_a_trace_that_is_not_sampled_is_not_sent(make_app: MakeApp) -> None:
    async with receiving() as (receiver, environment), RunningWorker(make_app(APP), env=environment) as worker:
        context = await handed(worker, CALLER[:-1] + "0")
        assert context is not None
        assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", context)
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0
    assert receiver.spans == []


async def test_without_tracing_a_job_gets_the_context_of_its_caller(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP), env=clean_environment()) as worker:
        assert await handed(worker, CALLER) == CALLER
        assert await handed(worker, None) is None
        for nonsense in ("00-what-ever", f"{CALLER}-more", CALLER.upper(), f"00-{'0' * 32}-00f067aa0ba902b7-01"):
            assert await handed(worker, nonsense) is None
        await worker.start(id="call")
        await worker.report("call")
        assert (await worker.get("/v1/jobs/call")).body["trace_id"] is None
    assert not [line for line in worker.lines if "trace" in line]


@pytest.mark.parametrize("log_format", ["human", "json"])
async def test_lines_about_a_job_have_its_trace(make_app: MakeApp, log_format: str) -> None:
    async with receiving() as (_, environment):
        options = ("--log-format", log_format, "--max-jobs", "1")
        async with RunningWorker(make_app(APP), *options, env=environment) as worker:
            order = {"json": {"id": "call", "metadata": "stay"}, "headers": {"traceparent": CALLER}}
            assert (await worker.ask("POST", "/v1/jobs", **order)).status == 201
            assert (await worker.get("/v1/jobs/call")).body["trace_id"] == TRACE
            assert (await worker.post(id="too-many")).status == 503
            await worker.ask("DELETE", "/v1/jobs/call")
            await worker.report("call")
            assert (await worker.get("/v1/jobs/call")).body["trace_id"] == TRACE
            worker.signal(signal.SIGTERM)
            assert await worker.ends() == 0
        about = {"started": "call", "hello": "call", "cancelled": "call", "turned down": "too-many"}
        for words, job_id in about.items():
            (line,) = (line for line in worker.lines if words in line and job_id in line)
            found = re.search(r'trace=([0-9a-f]{32})|"trace_id": "([0-9a-f]{32})"', line)
            assert found is not None, line
            assert (found[1] or found[2]) == TRACE or job_id == "too-many"
        assert not [line for line in worker.lines if TRACE in line and "call" not in line]


# --- jobs that are lost with their worker ---------------------------------------------------------


async def lose(make_app: MakeApp, history: Path, receiver: Receiver, environment: dict[str, str]) -> str:
    """Kill a worker that runs the job ``lost`` and has ended the job ``done``; returns the app."""
    app = make_app(APP)
    async with RunningWorker(app, "--history", str(history), env=environment) as worker:
        await worker.start(id="done")
        await worker.report("done")
        order = {"json": {"id": "lost", "metadata": "stay"}, "headers": {"traceparent": CALLER}}
        assert (await worker.ask("POST", "/v1/jobs", **order)).status == 201
        await eventually(lambda: "start" in receiver.of("lost") and "session" in receiver.of("done"))
        await eventually(lambda: has_started(history, "lost"))
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
    assert set(receiver.of("lost")) == {"offer", "claim", "start"}
    return app


def has_started(history: Path, job_id: str) -> bool:
    with closing(sqlite3.connect(f"{history.as_uri()}?mode=ro", uri=True)) as file:
        found = file.execute("SELECT brief FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return found is not None and json.loads(found[0])["started"] is not None


def unsent(history: Path) -> int:
    """Return the number of lost jobs whose spans are not sent."""
    with closing(sqlite3.connect(f"{history.as_uri()}?mode=ro", uri=True)) as file:
        count: int = file.execute("SELECT count(*) FROM lost").fetchone()[0]
    return count


def check(receiver: Receiver) -> None:
    """The trace of the lost job is whole, and its root says what happened."""
    spans = receiver.of("lost")
    assert set(spans) == {"session", "offer", "claim", "start", "run"}
    root = spans["session"]
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == tuple(CALLER.split("-")[1:3])
    assert root.kind == Span.SPAN_KIND_SERVER
    for name in ("offer", "claim", "start", "run"):
        assert (spans[name].trace_id, spans[name].parent_span_id) == (root.trace_id, root.span_id), name
    for span in (root, spans["run"]):
        assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, LOST)
        assert attributes(span)["greenroom.outcome"] == "killed"
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    assert abs(root.start_time_unix_nano - spans["offer"].start_time_unix_nano) < 1e9
    assert receiver.services == {"greenroom"}


async def test_the_root_of_a_lost_job_is_sent_once_by_the_next_worker(make_app: MakeApp, tmp_path: Path) -> None:
    history = tmp_path / "history.db"
    async with receiving() as (receiver, environment):
        environment["OTEL_BSP_SCHEDULE_DELAY"] = "50"
        app = await lose(make_app, history, receiver, environment)
        for _ in range(2):  # the second one has nothing to send
            async with RunningWorker(app, "--history", str(history), env=environment) as worker:
                await worker.url()
                await eventually(lambda: "session" in receiver.of("lost") and not unsent(history))
                shown = (await worker.get("/v1/jobs/lost")).body
                assert (shown["cause"], shown["trace_id"]) == (LOST, TRACE)
                worker.signal(signal.SIGTERM)
                assert await worker.ends() == 0
        check(receiver)


async def test_spans_that_the_collector_refuses_are_sent_later(make_app: MakeApp, tmp_path: Path) -> None:
    history = tmp_path / "history.db"
    async with receiving() as (receiver, environment):
        environment["OTEL_BSP_SCHEDULE_DELAY"] = "50"
        app = await lose(make_app, history, receiver, environment)
        receiver.status, before = 400, receiver.refused
        async with RunningWorker(app, "--history", str(history), env=environment) as worker:
            await eventually(lambda: receiver.refused > before)
            worker.signal(signal.SIGTERM)
            assert await worker.ends() == 0
        assert unsent(history) == 1
        receiver.status = 200
        async with RunningWorker(app, "--history", str(history), "--tracing", "off", env=environment) as worker:
            await worker.url()  # does not send, and forgets nothing
            worker.signal(signal.SIGTERM)
            assert await worker.ends() == 0
        async with RunningWorker(app, "--history", str(history), env=environment) as worker:
            await eventually(lambda: "session" in receiver.of("lost") and not unsent(history))
            worker.signal(signal.SIGTERM)
            assert await worker.ends() == 0
        check(receiver)


async def test_lost_jobs_without_a_trace_are_struck_off(make_app: MakeApp, tmp_path: Path) -> None:
    history, app = tmp_path / "history.db", make_app(APP)
    async with RunningWorker(app, "--history", str(history), env=clean_environment()) as worker:
        await worker.start("stay", id="lost")
        await eventually(lambda: has_started(history, "lost"))
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
    async with receiving() as (receiver, environment):
        async with RunningWorker(app, "--history", str(history), env=environment) as worker:
            await worker.url()
            await eventually(lambda: not unsent(history))
            worker.signal(signal.SIGTERM)
            assert await worker.ends() == 0
        assert receiver.spans == []


def test_the_traces_of_ended_jobs_are_bounded() -> None:
    traces = JobTraces(lambda context: JobTrace("1" * 32, "2" * 16, "3" * 16, context, 1))
    for number in range(2 * KEPT):
        traces.begin(f"job-{number}", None)
        traces.end(f"job-{number}")
    assert traces.find("job-0") is None
    assert traces.find(f"job-{2 * KEPT - 1}") is not None
    assert traces.trace_parent_of("next") == f"00-{'1' * 32}-{'3' * 16}-01"
