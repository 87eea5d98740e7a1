"""What jobs count by prometheus_client can be scraped; what has ended leaves its counts, and no live gauge."""

from __future__ import annotations

import json
import os
import re
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.mmap_dict import MmapedDict
from server.running_worker import RunningWorker

from greenroom.command_exit_codes import ExitCode
from greenroom.server.telemetry import job_metrics
from greenroom.server.telemetry.metric_files import Figures, SpoiltFile, packed, unpacked

MakeApp = Callable[[str], str]

APP = """
from prometheus_client import Counter, Gauge, Histogram

calls = Counter("calls", "Calls.", ["kind"])
live = Gauge("live_calls", "Calls now.", multiprocess_mode="livesum")
longest = Gauge("longest_seconds", "The longest.", multiprocess_mode="max")
mine = Gauge("mine", "Of each process.")
took = Histogram("took_seconds", "Time.", buckets=[1, 10])

@app.entrypoint
async def entrypoint(ctx):
    calls.labels("voice").inc()
    live.inc()
    took.observe(ctx.job.metadata)
    longest.set(ctx.job.metadata)
    mine.set(1)
    await ctx.wait_for_shutdown()
"""


async def test_metrics_of_jobs_are_summed_and_outlive_them(make_app: MakeApp, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    (folder / "gauge_livesum_4711.db").write_bytes(b"of an earlier worker")
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    async with RunningWorker(make_app(APP), "--num-idle-processes", "1", env=environment) as worker:
        jobs = [(await worker.start(seconds))["id"] for seconds in (0.5, 5)]

        def counts(text: str, live: float) -> bool:
            lines = text.splitlines()
            return {'calls_total{kind="voice"} 2.0', f"live_calls {live}", 'took_seconds_bucket{le="1.0"} 1.0'} <= {
                *lines
            }

        async def until(live: float) -> str:
            while not counts(text := (await worker.fetch("GET", "/metrics/jobs")).text, live):
                continue
            return text

        assert "greenroom_" not in await until(2.0)
        pids = []
        for job in jobs:
            await worker.ask("DELETE", f"/v1/jobs/{job}")
            pids.append((await worker.report(job))["pid"])
        text = await until(0.0)
        assert "took_seconds_count 2.0" in text
        assert "longest_seconds 5.0" in text
        assert not re.search(r"^mine\{.*\} 1\.0$", text, re.MULTILINE)
        assert "greenroom_jobs" in (await worker.fetch("GET", "/metrics")).text
        assert not [path for pid in pids for path in folder.glob(f"*_{pid}.db")]


SPOIL = """
    import os, pathlib, struct
    folder = pathlib.Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    own = folder / f"counter_{os.getpid()}.db"
    own.unlink()
    own.write_bytes(SPOILT)
    os.mkfifo(folder / "counter_1.db")
    (folder / "gauge_max_1.db").touch()
    os.truncate(folder / "gauge_max_1.db", 1 << 40)
    (folder / "summary_1.db").symlink_to("/dev/zero")
    (folder / "histogram_1.db").mkdir()
"""
BACKWARDS = struct.pack("i4x", 64) + struct.pack("i", 4) + b"keyx" + b" " * 8 + bytes(16) + struct.pack("i", -24) * 9
SPOILT = {
    "no file of prometheus_client's": b"no metrics",
    "a length that leads backwards": BACKWARDS,
    "a length beyond the end": struct.pack("i4xi", 1 << 20, 1 << 19),
    "deep": packed({"[" * 10_000: (1.0, 0.0)}),
    "a name that would forge a line": packed({json.dumps(["a 1\nb", "a", {}, ""]): (1.0, 0.0)}),
    "a label that would forge a line": packed({json.dumps(["a", "a", {"b} 1\nc": ""}, ""]): (1.0, 0.0)}),
    "labels that are none": packed({json.dumps(["a", "a", [], ""]): (1.0, 0.0)}),
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
async def test_a_file_that_a_job_has_spoilt_is_left_out(spoilt: bytes, make_app: MakeApp, tmp_path: Path) -> None:
    app = APP.replace("    await ctx.wait", f"{SPOIL.replace('SPOILT', repr(spoilt))}    await ctx.wait")
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    async with RunningWorker(make_app(app), "--num-idle-processes", "1", env=environment) as worker:
        job = await worker.start(5)
        while "longest_seconds 5.0" not in (live := await worker.fetch("GET", "/metrics/jobs")).text:
            assert live.status == 200
        await worker.ask("DELETE", f"/v1/jobs/{job['id']}")
        pid = (await worker.report(job["id"]))["pid"]
        await worker.logs(rf"the metrics of process {pid} in counter_{pid}\.db are left out")
        answer = await worker.fetch("GET", "/metrics/jobs")
        assert (answer.status, "longest_seconds 5.0" in answer.text) == (200, True)


def test_the_series_of_ended_jobs_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(job_metrics, "MOST_SERIES", 2)
    files = job_metrics._Files(tmp_path)
    for job in range(4):
        key = json.dumps(["calls", "calls_total", {"job": str(job)}, ""], sort_keys=True)
        (tmp_path / f"counter_{job}.db").write_bytes(packed({key: (1.0, 0.0)}))
        files.reap(str(job))
    text = files.render().decode()
    files.close()
    assert [line for line in text.splitlines() if "calls_total{" in line] == [
        'calls_total{job="0"} 1.0',
        'calls_total{job="1"} 1.0',
    ]
    assert caplog.text.count("ended jobs have left more than 2 series") == 1


async def test_half_of_a_surrogate_pair_in_a_label_is_an_escape(make_app: MakeApp, tmp_path: Path) -> None:
    """The name of a file that is not UTF-8, say."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    app = APP.replace('labels("voice")', "labels(chr(0xDC80))")
    async with RunningWorker(make_app(app), "--num-idle-processes", "1", env=environment) as worker:
        job = await worker.start(5)
        while "longest_seconds 5.0" not in (await worker.fetch("GET", "/metrics/jobs")).text:
            continue
        await worker.ask("DELETE", f"/v1/jobs/{job['id']}")
        await worker.report(job["id"])
        assert 'kind="\\\\udc80"' in (await worker.fetch("GET", "/metrics/jobs")).text


async def test_a_worker_that_cannot_listen_leaves_anothers_files(make_app: MakeApp, tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    async with RunningWorker(make_app(APP), "--num-idle-processes", "1", env=environment) as worker:
        await worker.start(5)
        port = str(await worker.port())
        async with RunningWorker(make_app(APP), "--port", port, env=environment) as second:
            assert await second.ends() == ExitCode.LISTEN
        while "longest_seconds 5.0" not in (await worker.fetch("GET", "/metrics/jobs")).text:
            continue


async def test_a_folder_that_cannot_be_is_told(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "metrics").touch()
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    async with RunningWorker(make_app(APP), env=environment) as worker:
        await worker.logs("cannot use PROMETHEUS_MULTIPROC_DIR for the metrics of jobs")
        assert await worker.ends() == ExitCode.USAGE


FIGURES = st.dictionaries(
    st.builds(
        lambda name, labels, text: json.dumps([name, name, labels, text], sort_keys=True),
        st.from_regex(r"[a-z_:][a-z0-9_:]*", fullmatch=True),
        st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True), st.text(max_size=20), max_size=3),
        st.text(max_size=20),
    ),
    st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)),
)


@given(FIGURES)
def test_what_is_packed_is_unpacked_and_prometheus_client_reads_it(figures: Figures) -> None:
    assert unpacked(packed(figures), "counter") == figures
    with tempfile.NamedTemporaryFile() as file:
        file.write(packed(figures))
        file.flush()
        read = {key: (value, time) for key, value, time, _ in MmapedDict.read_all_values_from_file(file.name)}
    assert read == figures


@given(st.binary(max_size=200))
def test_whatever_bytes_are_there_are_figures_or_spoilt(data: bytes) -> None:
    with suppress(SpoiltFile):
        assert isinstance(unpacked(data, "histogram"), dict)


async def test_without_a_folder_it_is_told_what_to_set(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP), "--num-idle-processes", "0") as worker:
        answer = await worker.get("/metrics/jobs")
        assert answer.status == 404
        assert "PROMETHEUS_MULTIPROC_DIR" in answer.error["message"]
