"""What an operator sees: counters from 0 on, causes with a count, incidents, and all of it after the last second."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest
from admissions import boundless_admission
from hypothesis import given
from hypothesis import strategies as st
from running_worker import RunningWorker
from support import eventually

from greenroom import ExitReport, ProcessPool, Timings
from greenroom.errors import ErrorInfo, RejectionReason
from greenroom.exit_reasons import POSSIBLE_ENDS
from greenroom.pool.events import (
    STALL_KINDS,
    ClaimFailed,
    JobEnded,
    JobStarted,
    ProcessEnded,
    Reloaded,
    ReloadFailed,
    Stalled,
    TurnedDown,
)
from greenroom.server.history.failures import KEPT_CAUSES, KEPT_REPORTS, Failures, cause_of
from greenroom.server.history.history import History
from greenroom.server.job_registry import JobRegistry
from greenroom.server.slices import Slices
from greenroom.server.telemetry.metrics import Metrics
from greenroom.server.telemetry.overview import Overview
from greenroom.server.telemetry.scrapes import Scrapes
from greenroom.server.telemetry.snapshot import Snapshot

MakeApp = Callable[[str], str]

APP = """
@app.prewarm
async def prewarm(proc):
    if os.path.exists(os.environ.get("FLAG", "")):
        raise ConnectionError("refused")  # PREWARM

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "raise":
        raise KeyError("menu")  # CALL
    if ctx.job.metadata == "stubborn":
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
    if ctx.job.metadata == "stay":
        await asyncio.sleep(3600)
"""
MOST_SERIES = 300


# --- counters -------------------------------------------------------------------------------------


async def test_each_counter_is_there_before_its_first_event(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP)) as worker:
        text = (await worker.fetch("GET", "/metrics")).text
        before = _series(text)
        for line in (
            'greenroom_turned_down_total{reason="full",source="http"} 0.0',
            'greenroom_turned_down_total{reason="offer_timeout",source="livekit"} 0.0',
            'greenroom_exits_total{had_job="true",outcome="failed",reason="raised"} 0.0',
            'greenroom_reloads_total{result="failed"} 0.0',
            'greenroom_stalls_total{class="loop blocked"} 0.0',
        ):
            assert line in text
        await worker.report((await worker.start("raise"))["id"])
        stubborn = await worker.start("stay")
        await worker.ask("DELETE", f"/v1/jobs/{stubborn['id']}")
        await worker.report(stubborn["id"])
        after = _series((await worker.fetch("GET", "/metrics")).text)
        assert after == before
        assert len(after) <= MOST_SERIES


async def test_the_series_are_bounded_whatever_happens(make_app: MakeApp) -> None:
    """A pool without any process gets the events of more generations, sources and kinds of ends than there ever are."""
    async with ProcessPool(make_app(APP), num_idle_processes=0) as pool:
        registry = JobRegistry()
        admission = boundless_admission(pool, registry, 1.0)
        history = History(pool, registry.live)
        overview = Overview(history, registry.live, Slices())
        metrics = Metrics(pool, Snapshot(pool, history.metadata_of), overview, admission, ("http", "livekit"))
        assert len(_series((await metrics.render()).decode())) <= MOST_SERIES
        ends = [
            (reason, outcome, job_id)
            for reason, both in POSSIBLE_ENDS.items()
            for job_id, outcomes in zip(("call", None), both, strict=True)
            for outcome in outcomes
        ]
        for number in range(2000):
            source = f"source-{number % 40}"
            pool.publish(TurnedDown(f"r-{number}", source, get_args(RejectionReason)[number % 9], "no room"))
            reason, outcome, job_id = ends[number % len(ends)]
            times = Timings(requested=0.0, started=1.0, ended=2.0)
            report = ExitReport(outcome, reason, "d", times, job_id=job_id, generation=number // 10)
            pool.publish(ProcessEnded(report))
            if job_id is not None:
                pool.publish(JobEnded(report, source))
            if number % 10 == 0:
                pool.publish(ReloadFailed("none") if number % 20 else Reloaded(number // 10, 1.0))
            pool.publish(Stalled("1-1", 1, "call", STALL_KINDS[number % len(STALL_KINDS)]))
            for launch_type in ("warm", "cold"):
                pool.publish(
                    JobStarted("call", source, "1-1", 1, number // 10, launch_type, 0.1, 0.0, {}, f"v{number}")
                )
                pool.publish(ClaimFailed("call", "1-1", 1, launch_type, "lost", retried=bool(number % 2)))
        while 'generation="199"' not in (text := (await metrics.render()).decode()):
            await asyncio.sleep(0.005)  # the events are delivered in a later turn of the event loop
        series = _series(text)
        assert len([one for one in series if one.startswith("greenroom_generation_ends_total")]) == 4 * 3
        assert len(series) <= MOST_SERIES


def _series(text: str) -> set[str]:
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


# --- calls that find no worker, or lose it --------------------------------------------------------


async def test_a_call_while_the_app_loads_is_counted_and_logged(make_app: MakeApp, tmp_path: Path) -> None:
    source = f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n{APP}"
    port = _free_port()
    async with RunningWorker(make_app(source), "--preload-timeout", "600", "--port", str(port)) as worker:
        await worker.logs("loading")  # the worker listens before it loads the app
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.post(f"http://127.0.0.1:{port}/v1/jobs", json={}) as answer:
                    assert answer.status == 503
        (tmp_path / "go").touch()
        await worker.url()
        metrics = (await worker.fetch("GET", "/metrics")).text
        assert 'greenroom_turned_down_total{reason="warming",source="http"} 3.0' in metrics
        assert (await worker.get("/pressure")).body["turned_down"]["by_reason"] == {"warming": 3}
        assert len([line for line in worker.lines if "was turned down (warming)" in line]) == 3


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def test_calls_that_a_drain_cuts_are_warnings_and_are_scraped(make_app: MakeApp) -> None:
    options = ("--drain-timeout", "0.2", "--log-format", "json")
    async with RunningWorker(make_app(APP), *options) as worker:
        base = await _url(worker)
        await _post(base, {"id": "cut", "metadata": "stay"})
        async with aiohttp.ClientSession() as session:
            texts = [await _scrape(session, base)]
            await asyncio.sleep(1.0)
            texts.append(await _scrape(session, base))
            worker.signal(signal.SIGTERM)
            while (text := await _scrape(session, base)) is not None:
                texts.append(text)
                await asyncio.sleep(1.0)  # so the drain and its ends come between two scrapes
        assert await worker.exit_code() == 0
        counted = 'greenroom_exits_total{had_job="true",outcome="cancelled",reason="drained"} 1.0'
        assert counted in (texts[-1] or "")
        (end,) = [line for line in _ends(worker, "drained") if line.get("job_id") == "cut"]
        assert end["level"] == "warning"


async def _scrape(session: aiohttp.ClientSession, base: str) -> str | None:
    try:
        async with session.get(f"{base}/metrics") as answer:
            return await answer.text()
    except aiohttp.ClientError:
        return None


@pytest.mark.parametrize(
    ("scrapes", "has_ended", "waits"), [(0, True, False), (1, True, False), (2, False, False), (2, True, True)]
)
async def test_the_end_waits_only_for_a_scraper_that_has_something_to_see(
    scrapes: int, has_ended: bool, waits: bool
) -> None:
    """One scrape tells no interval: nobody may come again."""
    pool = ProcessPool("an_app_that_is_never_loaded")
    last = Scrapes(pool)
    for _ in range(scrapes):
        last.note()
    if has_ended:
        pool.publish(TurnedDown("job", "http", "full", ""))
        await asyncio.sleep(0)
    waiting = asyncio.create_task(last.one_more())
    await asyncio.sleep(0)
    assert waiting.done() is not waits
    last.note()
    await waiting


# --- the log --------------------------------------------------------------------------------------


async def test_the_log_says_where_a_call_and_where_prewarm_raised(make_app: MakeApp, tmp_path: Path) -> None:
    flag = tmp_path / "prewarm-fails"
    environment = {**os.environ, "FLAG": str(flag)}
    app = make_app(APP)
    async with RunningWorker(app, "--log-format", "json", env=environment) as worker:
        base = await _url(worker)
        await _post(base, {"metadata": "raise"})
        await eventually(lambda: _ends(worker, "raised"), "the end of the call in the log")
        flag.touch()
        await _post(base, {"metadata": "raise"})
        await eventually(lambda: _ends(worker, "prewarm_failed"), "the end of prewarm in the log")
        call, warm = _ends(worker, "raised")[0], _ends(worker, "prewarm_failed")[0]
        assert "# CALL" in call["traceback"]
        assert "# PREWARM" in warm["traceback"]
        assert call["detail"].startswith("the entrypoint raised KeyError")
        lines = Path(app.partition(":")[0]).read_text().splitlines()
        for line, mark in ((call, "# CALL"), (warm, "# PREWARM")):
            assert line["file"] == app.partition(":")[0]
            assert lines[line["line"] - 1].endswith(mark)


def _ends(worker: RunningWorker, reason: str) -> list[dict[str, Any]]:
    return [line for line in _json(worker) if line.get("event") == "process_ended" and line["reason"] == reason]


def _json(worker: RunningWorker) -> list[dict[str, Any]]:
    return [json.loads(line) for line in worker.lines if line.startswith("{")]


async def _url(worker: RunningWorker) -> str:
    return (await worker.logs(r"serving .*(http://[\d.]+:\d+)"))[1]


async def _post(base: str, order: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{base}/v1/jobs", json=order) as answer:
        assert answer.status == 201, await answer.text()


# --- the board ------------------------------------------------------------------------------------


async def test_a_call_that_had_to_be_killed_after_a_hang_up_is_shown(make_app: MakeApp) -> None:
    options = ("--shutdown-timeout", "0.3", "--cleanup-timeout", "0.3")
    async with RunningWorker(make_app(APP), *options) as worker:
        job = (await worker.start("stubborn"))["id"]
        await worker.ask("DELETE", f"/v1/jobs/{job}?reason=hung+up")
        report = await worker.report(job)
        assert (report["outcome"], report["reason"]) == ("killed", "cancelled")
        board = (await worker.until("/v1/board", lambda answer: answer.body["reports"])).body
        assert [one["job_id"] for one in board["reports"]] == [job]
        assert board["causes"][0]["cause"] == "killed, cancelled"


async def test_the_log_says_where_an_app_does_not_load(make_app: MakeApp) -> None:
    app = make_app(APP)
    path = Path(app.partition(":")[0])
    async with RunningWorker(app, "--log-format", "json") as worker:
        await _url(worker)
        with path.open("a") as file:
            file.write("def broken(:\n")
        place = (str(path), len(path.read_text().splitlines()))
        assert (await worker.ask("POST", "/v1/pool/reload", json={})).status == 409
        await eventually(lambda: any(line.get("event") == "reload_failed" for line in _json(worker)), "a log line")
    async with RunningWorker(app, "--log-format", "json") as broken:
        assert await broken.exit_code() == 3
    for one, event in ((worker, "reload_failed"), (broken, "start_failed")):
        (line,) = [line for line in _json(one) if line.get("event") == event]
        assert (line["file"], line["line"]) == place


async def test_a_storm_of_one_kind_hides_no_other(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP)) as worker:
        victim = await worker.start("stay", id="victim")
        os.kill(victim["pid"], signal.SIGKILL)
        await worker.report("victim")
        for _ in range(KEPT_REPORTS + 10):
            await worker.report((await worker.start("raise"))["id"])
        board = (await worker.get("/v1/board")).body
        causes = {cause["cause"]: cause["count"] for cause in board["causes"]}
        assert causes["killed, signaled: SIGKILL"] == 1
        assert [count for cause, count in causes.items() if "KeyError at app_0.py:" in cause] == [KEPT_REPORTS + 10]
        assert "victim" in [one["job_id"] for one in board["reports"]]


async def test_what_concerns_the_worker_is_on_the_board_afterwards(make_app: MakeApp) -> None:
    app = make_app(APP)
    path = Path(app.rpartition(":")[0])
    async with RunningWorker(app) as worker:
        zygote = (await worker.get("/v1/pool")).body["zygote_pid"]
        os.kill(zygote, signal.SIGKILL)
        pool = await worker.until("/v1/pool", lambda answer: answer.body["zygote_pid"] not in (None, zygote))
        assert pool.body["generation"] == 1  # the zygote's replacement is no new generation
        path.write_text("def broken(:\n")
        assert (await worker.ask("POST", "/v1/pool/reload", json={})).status == 409
        path.write_text("import greenroom\napp = greenroom.App()\n@app.entrypoint\nasync def e(ctx): ...\n")
        assert (await worker.ask("POST", "/v1/pool/reload", json={})).status == 200
        board = (await worker.until("/v1/board", lambda answer: len(answer.body["incidents"]) >= 3)).body
        kinds = [one["kind"] for one in board["incidents"]]
        assert kinds[:3] == ["zygote lost", "reload failed", "reloaded"]
        assert "broken" in board["incidents"][1]["cause"] or "SyntaxError" in board["incidents"][1]["cause"]


# --- causes ---------------------------------------------------------------------------------------


def a_report(**changed: Any) -> ExitReport:
    known: dict[str, Any] = {"outcome": "failed", "reason": "raised", "detail": "", "timings": Timings(0.0)}
    return ExitReport(**(known | changed))


def test_reports_of_one_kind_have_one_cause() -> None:
    frames = ('File "/srv/agent.py", line 12, in entrypoint', 'File "/lib/db.py", line 7, in get')
    where = "\n".join(["Traceback", *(f"  {frame}" for frame in frames), "KeyError: 1"])
    error = ErrorInfo("KeyError", "1", where)
    assert cause_of(a_report(error=error)) == "failed, raised: KeyError at db.py:7"
    assert cause_of(a_report(error=ErrorInfo("KeyError", "2", ""))) == "failed, raised: KeyError"
    killed = a_report(outcome="killed", reason="signaled", signal=9)
    assert cause_of(killed) == "killed, signaled: SIGKILL"
    assert cause_of(a_report(outcome="killed", reason="stalled", signal=9)) == "killed, stalled"


@given(st.lists(st.integers(0, 60), max_size=400))
def test_failures_are_bounded_and_each_of_the_latest_causes_is_kept(causes: list[int]) -> None:
    failures = Failures()
    for at, cause in enumerate(causes):
        failures.add({"cause": str(cause)}, float(at))
    reports, listed = failures.reports(), failures.causes()
    assert len(reports) <= KEPT_REPORTS
    latest = list(dict.fromkeys(str(cause) for cause in reversed(causes)))[:KEPT_CAUSES]
    assert {one["cause"] for one in listed} == set(latest)
    assert {one["cause"] for one in reports} == set(latest)
    assert [one["at"] for one in reports] == sorted(one["at"] for one in reports)


def test_the_page_has_the_same_bounds() -> None:
    page = (Path(__file__).parents[2] / "src/greenroom/server/web/page/board.js").read_text()
    match = re.search(r"KEPT_CAUSES = (\d+)", page)
    assert match is not None
    assert int(match[1]) == KEPT_CAUSES
