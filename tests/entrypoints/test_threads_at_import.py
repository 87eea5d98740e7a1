"""Threads that a LiveKit app's libraries start at import: which survive a fork, and what is said of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from livekit_orders import order
from server.running_worker import RunningWorker

from greenroom import AppLoadError, OptionError, PoolOptions, ProcessPool

MakeAgent = Callable[..., Path]

AGENT = """
server = AgentServer(num_idle_processes=1, ws_url="ws://127.0.0.1:9", api_key="k", api_secret="s" * 32)

@server.rtc_session()
async def entrypoint(ctx: JobContext):
    await ctx.connect()
    work()
    ctx.shutdown("done")

def work(): ...
"""
BATCHES = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from livekit.agents import telemetry

class Exporter(SpanExporter):
    def export(self, spans):
        for span in spans:
            note(os.getpid(), span.name)
        return SpanExportResult.SUCCESS
    def shutdown(self): ...

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(Exporter()))
telemetry.set_tracer_provider(provider)
meters = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter(out=open(os.devnull, "w")))])
"""
WORK = """
def work():
    with provider.get_tracer("mine").start_as_current_span("my work"):
        pass
    provider.force_flush()
"""
LIBRARY = """
import threading

def start():
    threading.Thread(target=threading.Event().wait, name="uploader", daemon=True).start()
"""


PLAIN = """
app = greenroom.App()

@app.entrypoint
async def entrypoint(ctx): ...
"""


async def test_batch_processors_of_opentelemetry_work_in_each_job(make_agent: MakeAgent) -> None:
    """Their library starts their thread anew after a fork, and makes their locks anew."""
    pytest.importorskip("opentelemetry.sdk")
    path = make_agent(BATCHES + AGENT + WORK)
    async with ProcessPool(str(path)) as pool:
        reports = [await (await pool.launch(order(f"job-{number}"))).wait() for number in range(2)]
    assert [report.outcome for report in reports] == ["succeeded", "succeeded"], reports
    notes = path.with_suffix(".notes").read_text().splitlines()
    assert {f"{report.pid} my work" for report in reports} <= set(notes)


async def test_the_error_names_who_started_it_and_what_a_livekit_app_can_do(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    (tmp_path / "uploads.py").write_text(LIBRARY)
    # Another's thread by the name of OpenTelemetry's is refused as well.
    theirs = LIBRARY.replace("uploader", "OtelBatchSpanRecordProcessor") + "\nstart()\n"
    path = make_agent("import uploads\nuploads.start()\n" + theirs + AGENT)
    line = path.read_text().splitlines().index("uploads.start()") + 1
    with pytest.raises(AppLoadError) as refused:
        await ProcessPool(str(path)).start()
    told = str(refused.value)
    assert (
        f"uploader (started by module uploads ({tmp_path}/uploads.py, line 5, by way of {path}, line {line}))" in told
    )
    assert "OtelBatchSpanRecordProcessor (" in told
    assert "Start threads in setup_fnc instead" in told
    assert "start_method to 'spawn'" in told
    assert "the setting allow_threads" in told
    assert "App(" not in told


async def test_an_operator_can_allow_a_thread(make_agent: MakeAgent, tmp_path: Path) -> None:
    (tmp_path / "uploads.py").write_text(LIBRARY)
    path = make_agent("import uploads\nuploads.start()\n" + AGENT)
    async with ProcessPool(str(path), allow_threads=["uploader"]) as pool:
        report = await (await pool.launch(order())).wait()
        assert report.outcome == "succeeded", report
    plain = make_agent("import greenroom, uploads\nuploads.start()\n" + PLAIN, prelude="")
    async with RunningWorker(str(plain), "--num-idle-processes", "1", "--allow-threads", "poller,uploader") as worker:
        await worker.logs("serving .* with 1 idle processes")


@pytest.mark.more
async def test_spawned_processes_do_not_mind(make_agent: MakeAgent, tmp_path: Path) -> None:
    (tmp_path / "uploads.py").write_text(LIBRARY)
    path = make_agent("import uploads\nuploads.start()\n" + AGENT)
    async with ProcessPool(str(path), start_method="spawn", prewarm_timeout=60) as pool:
        assert (await (await pool.launch(order(), timeout=60)).wait()).outcome == "succeeded"


def test_names_of_threads_are_a_list() -> None:
    with pytest.raises(OptionError, match="allow_threads is 'uploader'; it must be a list of names"):
        PoolOptions(allow_threads="uploader")  # type: ignore[arg-type]


async def test_native_threads_are_told_by_the_import_that_started_them(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("numpy")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    caplog.set_level(logging.ERROR)
    with pytest.raises(AppLoadError, match=r"started by the import of numpy\.\S+\)"):
        await ProcessPool(str(make_agent("import greenroom, numpy\n" + PLAIN, prelude=""))).start()
