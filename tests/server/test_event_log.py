"""What the worker logs of its events: one line for each, as data too, and no flood however many are turned down."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from running_worker import RunningWorker
from support import DEADLINE

from greenroom import ProcessPool
from greenroom.pool.events import TurnedDown
from greenroom.server.telemetry.event_log import EventLog

MakeApp = Callable[[str], str]

APP = """
@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "fail":
        raise ValueError("it went wrong")
    await ctx.wait_for_shutdown()
"""


def details(records: list[logging.LogRecord], event: str) -> list[dict[str, Any]]:
    return [vars(record)["details"] for record in records if vars(record).get("event") == event]


async def test_a_flood_of_sessions_turned_down_is_counted_and_not_told_one_by_one(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "greenroom")
    pool = ProcessPool(make_app(APP))
    log = EventLog(pool, lambda job_id: None)
    for number in range(10_000):
        pool.publish(TurnedDown(f"job-{number}", "http", "full", "max_jobs (4) is reached"))
    pool.publish(TurnedDown("job-x", "http", "warming", "no process is idle"))
    async with asyncio.timeout(DEADLINE):
        while not details(caplog.records, "turned_down_summary"):
            await asyncio.sleep(0.01)
    log.close()
    await pool.aclose()
    told = details(caplog.records, "turned_down")
    assert len(told) < 200
    assert told[0] == {"job_id": "job-0", "source": "http", "reason": "full", "detail": "max_jobs (4) is reached"}
    assert told[-1]["reason"] == "warming"  # what is rare is not drowned in what is frequent
    summaries = details(caplog.records, "turned_down_summary")
    assert len(told) + sum(summary["count"] for summary in summaries) == 10_001


async def test_what_was_left_out_is_told_at_the_end_too(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    pool = ProcessPool(make_app(APP))
    log = EventLog(pool, lambda job_id: None)
    for number in range(100):
        pool.publish(TurnedDown(f"job-{number}", "http", "full", ""))
    await asyncio.sleep(0)
    log.close()
    (summary,) = details(caplog.records, "turned_down_summary")
    assert summary["count"] + len(details(caplog.records, "turned_down")) == 100


async def test_each_event_is_one_object_with_session_process_and_generation(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "1", "--max-jobs", "1", "--log-format", "json")
    async with RunningWorker(make_app(APP), *options) as worker:
        job = await worker.start(id="call")
        assert (await worker.post(id="another")).status == 503
        await worker.ask("POST", "/v1/pool/resize", json={"num_idle_processes": 2})
        await worker.ask("POST", "/v1/pool/reload", json={})
        await worker.ask("DELETE", "/v1/jobs/call?reason=enough")
        await worker.report("call")
        await worker.start("fail", id="failing")
        await worker.report("failing")
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0
        lines = [json.loads(line) for line in worker.lines]

    def of(event: str, **wanted: Any) -> dict[str, Any]:
        (line,) = (line for line in lines if line.get("event") == event and wanted.items() <= line.items())
        assert isinstance(line, dict)
        return line

    started = of("job_started", job_id="call")
    ids = {"job_id": "call", "process_id": started["process_id"], "job_pid": job["pid"], "generation": 1}
    assert ids.items() <= started.items()
    assert (started["source"], started["launch_type"], started["start_ms"]) == ("http", "warm", job["start_ms"])
    assert of("turned_down")["reason"] == "full"
    assert of("turned_down")["job_id"] == "another"
    assert of("resized")["num_idle_processes"] == 2
    assert of("reloaded")["generation"] == 2
    ended = of("process_ended", job_id="call")
    assert ids.items() <= ended.items()
    assert (ended["outcome"], ended["reason"], ended["level"]) == ("cancelled", "cancelled", "info")
    failed = of("process_ended", job_id="failing")
    assert (failed["outcome"], failed["reason"], failed["generation"]) == ("failed", "raised", 2)
    assert of("draining")["jobs"] == 0
    assert [line for line in lines if line.get("event") == "zygote_loaded"][-1]["generation"] == 2


@pytest.mark.parametrize(("wanted", "shown"), [("all", None), ("caller", {"caller": "+1"}), ("none", None)])
async def test_metadata_is_logged_if_its_keys_are_named(
    make_app: MakeApp, wanted: str, shown: dict[str, str] | None
) -> None:
    """Nobody has chosen that all of it goes into the log. The page shows it."""
    options = ("--max-jobs", "1", "--log-format", "json", "--shown-metadata", wanted)
    async with RunningWorker(make_app(APP), *options) as worker:
        metadata = {"caller": "+1", "secret": "swordfish"}
        await worker.start(metadata, id="call")
        assert (await worker.post(metadata, id="another")).status == 503
        board = (await worker.until("/v1/board", lambda answer: answer.body["turned_down"])).body
        assert board["turned_down"][0]["metadata"] == (metadata if wanted == "all" else shown)
        for event in ("job_started", "turned_down"):
            line = json.loads((await worker.logs(f'^.*"event": "{event}".*$'))[0])
            assert line.get("metadata") == shown


async def test_a_lost_zygote_and_its_successor_are_told(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP), "--num-idle-processes", "1", "--log-format", "json") as worker:
        os.kill((await worker.get("/v1/pool")).body["zygote_pid"], signal.SIGKILL)
        lost = json.loads((await worker.logs('^.*"event": "zygote_lost".*$'))[0])
        assert (lost["generation"], lost["level"]) == (1, "error")
        replaced = json.loads((await worker.logs('^.*"event": "zygote_replaced".*$'))[0])
        assert replaced["generation"] == 1  # the same code: it is replaced inside its generation
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0


async def test_an_expired_reservation_is_told(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    pool = ProcessPool(make_app(APP), num_idle_processes=1, reservation_timeout=0.05)
    log = EventLog(pool, lambda job_id: None)
    async with pool:
        reservation = await pool.reserve("x", source="test")
        async with asyncio.timeout(DEADLINE):
            while not (told := details(caplog.records, "reservation_expired")):
                await asyncio.sleep(0.01)
        assert (told[0]["job_id"], told[0]["source"], told[0]["generation"]) == (reservation.id, "test", 1)
    log.close()
