"""What jobs count by prometheus_client can be scraped; what has ended leaves its counts, and no live gauge."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from server.running_worker import RunningWorker

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
        for job in jobs:
            await worker.ask("DELETE", f"/v1/jobs/{job}")
            await worker.report(job)
        text = await until(0.0)
        assert "took_seconds_count 2.0" in text
        assert "longest_seconds 5.0" in text
        assert not re.search(r"^mine\{.*\} 1\.0$", text, re.MULTILINE)
        assert "greenroom_jobs" in (await worker.fetch("GET", "/metrics")).text
        ended = {path.name for path in folder.glob("*_ended.db")}
        assert ended == {"counter_ended.db", "histogram_ended.db", "gauge_max_ended.db"}


async def test_a_file_that_a_job_has_spoilt_is_left_out(make_app: MakeApp, tmp_path: Path) -> None:
    spoiling = APP.replace(
        "    await ctx.wait",
        """
    import os, pathlib
    folder = pathlib.Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    for path in folder.glob(f"counter_{os.getpid()}.db"):
        path.unlink()
        path.write_bytes(b"no metrics")
    os.mkfifo(folder / "counter_1.db")
    (folder / "gauge_max_1.db").touch()
    os.truncate(folder / "gauge_max_1.db", 1 << 40)
    await ctx.wait""",
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    async with RunningWorker(make_app(spoiling), "--num-idle-processes", "1", env=environment) as worker:
        job = await worker.start(5)
        while "longest_seconds 5.0" not in (live := await worker.fetch("GET", "/metrics/jobs")).text:
            continue
        assert live.status == 200
        await worker.ask("DELETE", f"/v1/jobs/{job['id']}")
        await worker.report(job["id"])
        await worker.logs(r"what process \d+ has counted in counter_\d+\.db is left out")
        answer = await worker.fetch("GET", "/metrics/jobs")
        assert "longest_seconds 5.0" in answer.text


async def test_without_a_folder_it_is_told_what_to_set(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP), "--num-idle-processes", "0") as worker:
        answer = await worker.get("/metrics/jobs")
        assert answer.status == 404
        assert "PROMETHEUS_MULTIPROC_DIR" in answer.error["message"]
