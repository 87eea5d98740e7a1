"""`greenroom drain`, `reload`, `resize` and `status` against a real worker: S5 and S6 through the command line."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from client_commands import TELLING, ask, greenroom
from faults.stage import Stage
from hypothesis import given
from hypothesis import strategies as st
from server.running_worker import RunningWorker

from greenroom import PoolOptions
from greenroom.cli.draining import longest_wait
from greenroom.settings.worker_options import longest_stop

MakeApp = Callable[[str], str]

HELD_LOADING = f"""
@app.preload
def preload():
    block_on_stage("preload")
{TELLING}"""

ANSWERING = """
@app.entrypoint
async def entrypoint(ctx):
    return ANSWER

ANSWER = "old"
"""


def _change(app: str, old: str, new: str) -> None:
    path = Path(app.rpartition(":")[0])
    path.write_text(path.read_text().replace(old, new))


async def test_S6_a_reload_with_broken_code_exits_with_one_and_the_cause(make_app: MakeApp) -> None:
    app = make_app(ANSWERING)
    async with RunningWorker(app, "--num-idle-processes", "1") as worker:
        await worker.url()
        _change(app, 'ANSWER = "old"', "ANSWER = mistake")
        failed = await ask(worker, "reload")
        assert (failed.code, failed.out) == (1, "")
        assert "the old code goes on serving" in failed.err
        assert "NameError: name 'mistake' is not defined" in failed.err
        run = ("jobs", "run", "--wait", "--json")
        assert (await ask(worker, *run)).json["report"]["result"] == "old"

        _change(app, "ANSWER = mistake", 'ANSWER = "new"')
        reloaded = await ask(worker, "reload")
        assert reloaded.code == 0
        assert "serves from now on" in reloaded.out
        assert (await ask(worker, *run)).json["report"]["result"] == "new"
        assert (await ask(worker, "reload", "--json")).json["generation"] > 1


async def test_S5_drain_and_wait_returns_when_the_last_job_has_ended(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(TELLING)) as worker:
        await worker.start("stay", id="call")
        visit = await stage.next("job")
        draining = asyncio.create_task(ask(worker, "drain", "--wait"))
        await worker.logs("draining: 1 jobs")
        status = await ask(worker, "status")
        assert status.code == 1
        assert status.out.startswith("not ready: draining")
        turned_down = await ask(worker, "jobs", "run")
        assert turned_down.code == 1
        assert "draining" in turned_down.err
        assert not draining.done()
        visit.order("leave")
        done = await draining
        assert (done.code, done.out) == (0, "the worker has ended after its last job\n")
        assert "1 jobs may go on for 60 s" in done.err
        assert await worker.ends() == 0


async def test_S5_a_drain_that_cuts_a_job_short_exits_with_one(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(TELLING)) as worker:
        await worker.start("stay", id="call")
        await stage.next("job")
        done = await ask(worker, "drain", "--wait", "--timeout", "0.1", "--json")
        assert done.code == 1
        assert done.json == {"jobs": 1, "timeout": 0.1, "cut_short": ["call"]}
        assert await worker.ends() == 0


@given(drain=st.floats(0, 10**6), shutdown=st.floats(0.1, 10**6), cleanup=st.floats(0.1, 10**6))
def test_S5_a_drain_is_waited_for_until_the_longest_stop(drain: float, shutdown: float, cleanup: float) -> None:
    options = PoolOptions(shutdown_timeout=shutdown, cleanup_timeout=cleanup)
    assert longest_wait(drain, asdict(options)) > longest_stop(options, drain)


async def test_S5_a_drain_without_waiting(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(TELLING)) as worker:
        await worker.start("stay", id="call")
        visit = await stage.next("job")
        done = await ask(worker, "drain", "--timeout", "30")
        assert (done.code, done.out) == (0, "draining: 1 jobs may go on for 30 s, then the worker ends\n")
        visit.order("leave")
        assert await worker.ends() == 0


async def test_resize(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(ANSWERING), "--num-idle-processes", "1") as worker:
        done = await ask(worker, "resize", "3", "--max", "4")
        assert (done.code, done.out) == (0, "idle processes to hold: 3, at most 4\n")
        await worker.until("/v1/pool", lambda answer: answer.body["idle"] == 3)
        as_json = await ask(worker, "resize", "2", "--json")
        assert as_json.json == {"num_idle_processes": 2, "max_idle_processes": 4}
        refused = await ask(worker, "resize", "3", "--max", "2")
        assert refused.code == 1
        assert "max_idle_processes" in refused.err
        assert (await ask(worker, "resize", "many")).code == 2
        assert (await ask(worker, "resize", "--", "-1")).code == 2


async def test_status_of_a_worker_that_is_ready(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(ANSWERING), "--num-idle-processes", "2") as worker:
        done = await ask(worker, "status")
        assert done.code == 0
        facts = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in done.out.splitlines()}
        assert "ready" in facts
        assert (facts["jobs"], facts["idle"]) == ("0 of 100", "2 of 2")
        as_json = (await ask(worker, "status", "--json")).json
        assert (as_json["ready"], as_json["reason"], as_json["pressure"]["idle"]) == (True, None, 2)


async def test_status_of_a_worker_that_is_full(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(TELLING), "--max-jobs", "1") as worker:
        await worker.start("stay")
        await stage.next("job")
        assert (await ask(worker, "jobs", "run")).code == 1
        done = await ask(worker, "status")
        assert done.code == 1
        assert done.out.startswith("not ready: full (the worker has as many jobs as max_jobs allows)\n")
        assert "1 in the last 60 s: full 1" in done.out
        as_json = await ask(worker, "status", "--json")
        assert (as_json.code, as_json.json["reason"]) == (1, "full")


async def test_status_of_a_worker_that_loads_its_app(make_app: MakeApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with Stage(make_app) as stage, RunningWorker(stage.app(HELD_LOADING), "--port", str(port)) as worker:
        visit = await stage.next("preload")
        done = await greenroom("status", "--url", f"http://127.0.0.1:{port}")
        assert done.code == 1
        assert done.out.startswith("not ready: warming (the app is still being loaded)\n")
        visit.order("load")
        assert (await ask(worker, "status")).code == 0
