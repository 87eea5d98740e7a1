"""S5 through the real command: signals in every phase, and a terminal's Ctrl-C."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress

import aiohttp
import pytest
from faults.stage import PLAIN, Stage
from running_worker import RunningWorker, orphans
from support import eventually

from greenroom.system import proc

MakeApp = Callable[[str], str]

HELD_LOADING = f"""
@app.preload
def preload():
    block_on_stage("preload")
{PLAIN}"""

HELD_WARMING = f"""
@app.prewarm
async def prewarm(proc):
    await on_stage("prewarm")
{PLAIN}"""

FORCED = 128
SIGNALS = pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])


@SIGNALS
async def test_S5_signal_while_the_app_loads(make_app: MakeApp, signum: int) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(HELD_LOADING)) as worker:
        visit = await stage.next("preload")
        worker.signal(signum)
        assert await worker.ends() == 0
        await visit.left()


async def test_S5_signal_while_the_first_processes_warm_up(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(HELD_WARMING)) as worker:
        visit = await stage.next("prewarm")
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0
        await visit.left()


@SIGNALS
async def test_S5_signal_while_idle(make_app: MakeApp, signum: int) -> None:
    async with RunningWorker(make_app(PLAIN), "--num-idle-processes", "2") as worker:
        await worker.url()
        worker.signal(signum)
        assert await worker.ends() == 0


async def test_S5_a_running_job_ends_in_its_own_time(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(), "--num-idle-processes", "1") as worker:
        job = await worker.start("stay")
        visit = await stage.next("job")
        waiting = await worker.report_to_come(job["id"])
        worker.signal(signal.SIGTERM)
        await worker.logs("draining: 1 jobs")
        turned_down = await worker.post()
        assert (turned_down.status, turned_down.error["reason"]) == (503, "draining")
        ready = await worker.get("/readyz")
        assert (ready.status, ready.body["reason"]) == (503, "draining")
        assert (await worker.get("/livez")).status == 200
        visit.order("leave")
        assert (await waiting)["outcome"] == "succeeded"
        assert await worker.ends() == 0
        assert stage.starts() == {job["id"]: 1}


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_S5_a_signal_to_all_processes_lets_a_job_end_in_its_own_time(
    make_app: MakeApp, start_method: str
) -> None:
    """As systemd sends it under ``KillMode=control-group``."""
    options = ("--num-idle-processes", "1", "--start-method", start_method)
    async with Stage(make_app) as stage, RunningWorker(stage.app(), *options) as worker:
        job = await worker.start("stay")
        visit = await stage.next("job")
        waiting = await worker.report_to_come(job["id"])
        parent = proc.stat(visit.pid).ppid
        for pid in {*proc.children(parent), parent, worker.pid}:
            with suppress(ProcessLookupError):  # an idle process that was not wanted any more, such as a resident one
                os.kill(pid, signal.SIGTERM)
        await worker.logs("draining: 1 jobs")
        visit.order("leave")
        assert (await waiting)["outcome"] == "succeeded"
        assert await worker.ends() == 0


async def test_a_hang_up_of_all_processes_ends_no_job(make_app: MakeApp) -> None:
    """As ``systemctl kill -s HUP`` sends it, and a terminal that is closed. There is no zygote to witness it."""
    options = ("--num-idle-processes", "1", "--start-method", "spawn")
    async with Stage(make_app) as stage, RunningWorker(stage.app(), *options) as worker:
        job = await worker.start("stay")
        visit = await stage.next("job")
        waiting = await worker.report_to_come(job["id"])
        for pid in (visit.pid, worker.pid):
            os.kill(pid, signal.SIGHUP)
        visit.order("leave")
        assert (await waiting)["reason"] == "completed"
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0


async def test_S5_a_drain_counts_jobs_from_acceptance(make_app: MakeApp) -> None:
    """A job that waits for a process when the signal comes is started, answered and waited for."""
    async with Stage(make_app) as stage, RunningWorker(stage.app(HELD_WARMING), "--num-idle-processes", "0") as worker:
        posting = asyncio.create_task(worker.start("stay"))
        prewarm = await stage.next("prewarm")
        worker.signal(signal.SIGTERM)
        await worker.logs("draining: 1 jobs")
        prewarm.order("warm")
        job = await posting
        (await stage.next("job")).order("leave")
        assert await worker.ends() == 0
        assert stage.starts() == {job["id"]: 1}


@SIGNALS
async def test_S5_a_second_signal_ends_jobs_at_once(make_app: MakeApp, signum: int) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(), "--num-idle-processes", "1") as worker:
        job = await worker.start("stay")
        visit = await stage.next("job")
        waiting = await worker.report_to_come(job["id"])
        worker.signal(signum)
        await worker.logs("draining: 1 jobs")
        worker.signal(signum)
        assert await worker.ends() == FORCED + signum
        await visit.left()
        report = await waiting
        assert (report["outcome"], report["reason"]) == ("killed", "drained")


async def test_S5_a_drain_that_takes_too_long_ends_jobs(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        options = ("--num-idle-processes", "1", "--drain-timeout", "0.1")
        async with RunningWorker(stage.app(), *options) as worker:
            job = await worker.start("stay")
            await stage.next("job")
            waiting = await worker.report_to_come(job["id"])
            worker.signal(signal.SIGTERM)
            assert await worker.ends() == 0
            report = await waiting
            assert (report["outcome"], report["reason"]) == ("cancelled", "drained")
            assert "0.1 s" in report["detail"]


async def test_S5_a_reload_under_way_gives_way_to_a_drain(make_app: MakeApp) -> None:
    """And a hang-up during a drain changes nothing."""
    async with Stage(make_app) as stage:
        app = stage.app(HELD_LOADING)
        async with RunningWorker(app, "--num-idle-processes", "1") as worker:
            (await stage.next("preload")).order("load")
            job = await worker.start("stay")
            visit = await stage.next("job")
            worker.signal(signal.SIGHUP)
            reloading = await stage.next("preload")
            worker.signal(signal.SIGTERM)
            await reloading.left()
            await worker.logs("draining: 1 jobs")
            worker.signal(signal.SIGHUP)
            await worker.logs("not reloading")
            report = await worker.report_to_come(job["id"])
            visit.order("leave")
            assert (await report)["outcome"] == "succeeded"
            assert await worker.ends() == 0


async def test_S5_sigkill_leaves_nothing(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(), "--num-idle-processes", "2") as worker:
        await worker.start("stay")
        visit = await stage.next("job")
        worker.signal(signal.SIGKILL)
        await visit.left()
        await eventually(lambda: not orphans(), "end of everything below the worker")


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, its = pty.openpty()
    yield ours, its
    os.close(ours)
    os.close(its)


async def test_S5_ctrl_c_reaches_the_supervisor_alone(make_app: MakeApp, terminal: tuple[int, int]) -> None:
    ours, its = terminal

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    in_terminal = {"stdin": its, "start_new_session": True, "preexec_fn": take_terminal}
    async with (
        Stage(make_app) as stage,
        RunningWorker(stage.app(), "--num-idle-processes", "1", **in_terminal) as worker,
    ):
        job = await worker.start("stay")
        visit = await stage.next("job")
        assert os.tcgetpgrp(ours) == worker.pid
        os.write(ours, b"\x03")
        await worker.logs("SIGINT")
        await worker.logs("draining: 1 jobs")
        assert (await worker.get(f"/v1/jobs/{job['id']}")).body["state"] == "running"
        waiting = await worker.report_to_come(job["id"])
        visit.order("leave")
        report = await waiting
        assert (report["outcome"], report["signal"]) == ("succeeded", None)
        assert await worker.ends() == 0


async def test_S5_a_worker_that_ends_closes_its_port(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(PLAIN), "--num-idle-processes", "0") as worker:
        await worker.get("/livez")  # leaves a connection open
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0
        with pytest.raises(aiohttp.ClientError):
            await worker.get("/livez")
