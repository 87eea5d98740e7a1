"""`greenroom jobs` against a real worker: what is shown, and with which code it exits. P8 and W3 from here, too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from client_commands import TELLING, ask
from faults.stage import Stage
from server.running_worker import RunningWorker

from greenroom.cli.jobs import State
from greenroom.server.web.schema import ListJobs

MakeApp = Callable[[str], str]


@asynccontextmanager
async def working(make_app: MakeApp, *options: str) -> AsyncIterator[tuple[RunningWorker, Stage]]:
    async with Stage(make_app) as stage, RunningWorker(stage.app(TELLING), *options) as worker:
        yield worker, stage


def test_the_states_that_can_be_asked_for_are_the_apis() -> None:
    of_api = next(part for part in get_args(get_type_hints(ListJobs)["state"]) if part is not type(None))
    assert get_args(State) == get_args(of_api)


async def test_a_job_is_started_and_shown(make_app: MakeApp) -> None:
    async with working(make_app) as (worker, stage):
        started = await ask(worker, "jobs", "run", "--id", "call", "--metadata", '"stay"')
        pid = (await stage.next("job")).pid
        assert started.code == 0
        assert started.out.startswith(f"job call runs in process {pid} (warm, ")
        shown = await ask(worker, "jobs", "show", "call")
        assert shown.code == 0
        assert "running" in shown.out
        assert (await ask(worker, "jobs", "show", "call", "--json")).json["report"] is None


async def test_a_start_as_json(make_app: MakeApp) -> None:
    async with working(make_app) as (worker, _):
        started = await ask(worker, "jobs", "run", "--json")
        assert (started.code, started.err) == (0, "")
        assert started.json["launch_type"] == "warm"
        shown = await ask(worker, "jobs", "show", started.json["id"], "--wait", "60", "--json")
        assert shown.json["report"]["result"] == {"metadata": None}


async def test_run_and_wait_tells_the_outcome_by_its_exit_code(make_app: MakeApp) -> None:
    async with working(make_app) as (worker, _):
        good = await ask(worker, "jobs", "run", "--wait", "--metadata", '{"caller": "+1555"}')
        assert good.code == 0
        assert "runs in process" in good.err
        assert "succeeded" in good.out
        assert '"caller": "+1555"' in good.out
        bad = await ask(worker, "jobs", "run", "--wait", "--metadata", '"raise"')
        assert bad.code == 1
        assert "in entrypoint" in bad.out  # the traceback
        assert "\x1b" not in bad.out  # what an app writes does not steer the terminal
        assert "\\x1b[31m text" in bad.out
        as_json = await ask(worker, "jobs", "run", "--wait", "--json", "--metadata", '"raise"')
        assert (as_json.code, as_json.json["report"]["reason"]) == (1, "raised")


async def test_metadata_comes_from_a_file_or_the_standard_input_unchanged(make_app: MakeApp, tmp_path: Path) -> None:
    metadata = '{"n": 12345678901234567890, "text": "\\u00e9 \\ud83d\\ude00"}'
    (tmp_path / "metadata.json").write_text(metadata)
    async with working(make_app) as (worker, _):
        for file, stdin in ((str(tmp_path / "metadata.json"), None), ("-", metadata.encode())):
            done = await ask(worker, "jobs", "run", "--wait", "--json", "--metadata-file", file, stdin=stdin)
            assert done.json["report"]["result"] == {"metadata": json.loads(metadata)}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--metadata", "hello"], "A JSON string needs quotes: '\"hello\"'"),
        (["--metadata", "NaN"], "not JSON"),
        (["--metadata", "[" * 100_000], "nested too deeply"),
        (["--metadata", "1", "--metadata-file", "-"], "exclude each other"),
        (["--metadata-file", "/no/such/file"], "No such file"),
        (["--timeout", "soon"], "--timeout"),
        (["--id", "**"], "does not fit"),
    ],
)
async def test_what_cannot_be_meant_is_a_usage_error(make_app: MakeApp, arguments: list[str], says: str) -> None:
    async with working(make_app, "--num-idle-processes", "0") as (worker, stage):
        done = await ask(worker, "jobs", "run", *arguments)
        assert (done.code, done.out) == (2, "")
        assert says in done.err
        assert stage.starts() == {}


async def test_what_is_turned_down_exits_with_one_and_the_reason(make_app: MakeApp) -> None:
    async with working(make_app, "--max-jobs", "1") as (worker, stage):
        await worker.start("stay", id="first")
        await stage.next("job")
        full = await ask(worker, "jobs", "run")
        assert full.code == 1
        assert "rejected (full)" in full.err
        again = await ask(worker, "jobs", "run", "--id", "first")
        assert again.code == 1
        assert "taken" in again.err


async def test_jobs_are_listed_and_picked(make_app: MakeApp) -> None:
    async with working(make_app) as (worker, stage):
        await worker.start("raise", id="bad")
        await worker.report("bad")
        await worker.start("stay", id="live")
        await stage.next("job")
        listed = await ask(worker, "jobs", "list")
        assert listed.code == 0
        head, *rows = [line.split() for line in listed.out.splitlines()]
        assert head[:3] == ["ID", "STATE", "PID"]
        assert [row[0] for row in rows] == ["bad", "live"]
        assert rows[0][-2:] == ["failed", "raised"]
        for picks, expected in (
            (["--state", "live"], ["live"]),
            (["--outcome", "failed"], ["bad"]),
            (["--reason", "completed"], []),
            (["--limit", "1"], ["live"]),
        ):
            found = (await ask(worker, "jobs", "list", "--json", *picks)).json["jobs"]
            assert [job["id"] for job in found] == expected
        wrong = await ask(worker, "jobs", "list", "--state", "lively")
        assert wrong.code == 2
        assert "'running'" in wrong.err


async def test_a_job_that_is_not_known(make_app: MakeApp) -> None:
    async with working(make_app, "--num-idle-processes", "0") as (worker, _):
        for command in ("show", "cancel"):
            done = await ask(worker, "jobs", command, "no/such job")
            assert done.code == 1
            assert "there is no job 'no/such job'" in done.err


async def test_W3_P8_a_job_is_cancelled_while_it_runs_and_again_after_its_end(make_app: MakeApp) -> None:
    async with working(make_app) as (worker, _):
        await worker.start("shutdown", id="call")
        waiting = asyncio.create_task(ask(worker, "jobs", "show", "call", "--wait", "60"))
        cancelled = await ask(worker, "jobs", "cancel", "call", "--reason", "the operator said so")
        assert (cancelled.code, cancelled.out) == (0, "job call is being cancelled\n")
        shown = await waiting
        assert shown.code == 0
        assert "the operator said so" in shown.out
        report = await worker.report("call")
        assert (report["outcome"], report["detail"]) == ("cancelled", "the operator said so")
        again = await ask(worker, "jobs", "cancel", "call", "--reason", "another one")
        assert again.code == 1
        assert "had already ended: cancelled, cancelled" in again.out
        assert (await worker.report("call"))["detail"] == "the operator said so"
        as_json = await ask(worker, "jobs", "cancel", "call", "--json")
        assert (as_json.code, as_json.json["state"]) == (1, "ended")


async def test_a_worker_that_dies_while_a_job_is_waited_for(make_app: MakeApp) -> None:
    async with working(make_app) as (worker, stage):
        waiting = asyncio.create_task(ask(worker, "jobs", "run", "--wait", "--id", "call", "--metadata", '"stay"'))
        await stage.next("job")
        worker.signal(9)
        done = await waiting
        assert done.code == 5
        # The worker may have died before its answer that the job was started had come, or after.
        assert "was lost: " in done.err or "its result is unknown" in done.err
