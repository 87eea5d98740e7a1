"""Sessions as OpenTelemetry spans, sent to a real receiver: its parents and children, times, attributes, errors."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.stage import PLAIN, Stage
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from receiver import attributes, clean_environment, receiving
from running_worker import RunningWorker
from support import DEADLINE

from greenroom import OptionError
from greenroom.server.telemetry.otel import exporter_for

MakeApp = Callable[[str], str]

APP = """
@app.request
async def request(request):
    return "no" not in str(request.job.metadata) or greenroom.Reject("no, thanks")

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "fail":
        raise ValueError("it went wrong")
    if ctx.job.metadata == "stay":
        await ctx.wait_for_shutdown()
"""
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_session_is_a_trace_from_the_offer_to_the_end(make_app: MakeApp) -> None:
    async with (
        receiving() as (receiver, environment),
        RunningWorker(make_app(APP), "--num-idle-processes", "1", "--max-jobs", "1", env=environment) as worker,
    ):
        order = {"json": {"metadata": "stay", "id": "call"}, "headers": {"traceparent": CALLER}}
        job = (await worker.ask("POST", "/v1/jobs", **order)).body
        assert (await worker.post(id="too-many")).status == 503
        await worker.ask("DELETE", "/v1/jobs/call?reason=enough")
        report = await worker.report("call")
        await worker.until("/readyz", lambda answer: answer.status == 200)
        assert (await worker.post("no", id="unwanted")).status == 403
        await worker.until("/readyz", lambda answer: answer.status == 200)
        await worker.start("fail", id="failing")
        await worker.report("failing")
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0

    call = receiver.of("call")
    assert set(call) == {"session", "offer", "claim", "start", "run"}
    root = call.pop("session")
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == tuple(CALLER.split("-")[1:3])
    for span in call.values():
        assert (span.trace_id, span.parent_span_id) == (root.trace_id, root.span_id)
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    one_after_the_other = [call[name] for name in ("offer", "claim", "start", "run")]
    times = [time for span in one_after_the_other for time in (span.start_time_unix_nano, span.end_time_unix_nano)]
    assert times == sorted(times)
    known = attributes(root)
    assert (known["greenroom.process_pid"], known["greenroom.generation"]) == (job["pid"], 1)
    assert (known["greenroom.outcome"], known["greenroom.reason"]) == (report["outcome"], report["reason"])
    assert known["greenroom.source"] == "http"
    assert root.status.code == Status.STATUS_CODE_UNSET

    for job_id, reason in (("too-many", "full"), ("unwanted", "rejected_by_app")):
        turned_down = receiver.of(job_id)
        assert set(turned_down) == {"session", "offer"}
        for span in turned_down.values():
            assert span.status.code == Status.STATUS_CODE_ERROR
            assert attributes(span)["greenroom.reason"] == reason
        assert turned_down["session"].parent_span_id == b""

    failing = receiver.of("failing")
    assert failing["run"].status.code == failing["session"].status.code == Status.STATUS_CODE_ERROR
    (event,) = failing["run"].events
    assert attributes(event)["exception.type"] == "ValueError"
    assert "it went wrong" in attributes(event)["exception.stacktrace"]
    assert receiver.services == {"greenroom"}


async def test_no_thread_of_the_exporter_is_in_the_zygote_or_in_a_session(make_app: MakeApp) -> None:
    app = make_app("""
    @app.entrypoint
    async def entrypoint(ctx):
        return [thread.name for thread in threading.enumerate()], "opentelemetry" in sys.modules
    """)
    async with receiving() as (receiver, environment), RunningWorker(app, env=environment) as worker:
        await worker.start(id="call")
        assert (await worker.report("call"))["result"] == [["MainThread"], False]
        zygote = (await worker.get("/v1/pool")).body["zygote_pid"]
        assert len(list(Path(f"/proc/{zygote}/task").iterdir())) == 1
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0
    assert "run" in receiver.of("call")


async def test_a_collector_that_is_not_there_holds_nothing_up(make_app: MakeApp) -> None:
    environment = clean_environment() | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    async with RunningWorker(make_app(APP), env=environment) as worker:
        await worker.start(id="call")
        await worker.report("call")
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0


async def test_nonsense_for_a_parent_begins_a_trace(make_app: MakeApp) -> None:
    async with receiving() as (receiver, environment), RunningWorker(make_app(APP), env=environment) as worker:
        order = {"json": {"id": "call"}, "headers": {"traceparent": "00-what-ever"}}
        assert (await worker.ask("POST", "/v1/jobs", **order)).status == 201
        await worker.report("call")
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0
    assert receiver.of("call")["session"].parent_span_id == b""


async def test_without_the_packages_it_says_what_to_install(make_app: MakeApp, tmp_path: Path) -> None:
    """A module that cannot be imported stands in the way of the real one, as if that were not installed."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'opentelemetry'\", name='opentelemetry')"
    )
    environment = clean_environment() | {"PYTHONPATH": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("greenroom")),
        *("start", make_app(APP), "--tracing", "on", "--port", "0"),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE):
        _, error = await process.communicate()
    assert process.returncode == 2
    assert "opentelemetry is not installed: run pip install 'greenroom[otel]'" in " ".join(error.decode().split())
    # Wanted by a variable that may be there for the app alone, it is served all the same.
    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    async with RunningWorker(make_app(APP), env=environment) as worker:
        await worker.logs("opentelemetry is not installed.*No spans are sent")
        await worker.start()
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0


def test_what_the_environment_says_holds() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    assert exporter_for("auto", {}) is None
    assert exporter_for("off", endpoint) is None
    assert exporter_for("auto", endpoint | {"OTEL_SDK_DISABLED": "true"}) is None
    assert exporter_for("auto", endpoint | {"OTEL_TRACES_EXPORTER": "none"}) is None
    assert exporter_for("auto", endpoint | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) is None
    with pytest.raises(OptionError, match=r"OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'.*http/protobuf"):
        exporter_for("on", endpoint | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


async def test_what_was_released_in_the_last_moment_is_told(make_app: MakeApp) -> None:
    asked = PLAIN + '\n@app.request\nasync def request(request):\n    await on_stage("asked")\n'
    async with Stage(make_app) as stage, receiving() as (receiver, environment):
        options = ("--num-idle-processes", "1", "--request-timeout", "50")
        async with RunningWorker(stage.app(asked), *options, env=environment) as worker:
            caller = asyncio.create_task(worker.post(id="hung-up"))
            visit = await stage.next("asked")
            caller.cancel()
            await visit.left()
            worker.signal(signal.SIGTERM)
            assert await worker.ends() == 0
    session = receiver.of("hung-up")
    assert set(session) == {"session", "offer"}
    assert attributes(session["session"])["greenroom.reason"] == "released"
