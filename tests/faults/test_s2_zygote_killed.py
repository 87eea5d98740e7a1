"""S2: the zygote is killed, stopped, or hangs in a fork. Live jobs go on, their ends are told exactly,
and launching resumes."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scarce_cpu import HOG, starved
from stage import Stage, assert_recovered
from support import DEADLINE, eventually, is_gone, kill, wait_for_exit, wait_for_file, zygote_pid

from greenroom import AppLoadError, ExitReport, PoolClosed, ProcessPool
from greenroom.pool.events import Event, Reloaded, ReloadFailed
from greenroom.system import proc

MakeApp = Callable[[str], str]

APP = """
import subprocess

@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    if ctx.job.metadata == "quick":
        return "done"
    if ctx.job.metadata == "grandchildren":
        for session in (False, True):
            note("grandchild", subprocess.Popen(["sleep", "1000"], start_new_session=session).pid)
    order = await on_stage("job", ctx.job.id)
    if order == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if order.isdigit():
        os._exit(int(order))
    return order
"""


def pool_of(app: str, **options: Any) -> ProcessPool:
    # What is left of the lost zygote's idle processes is surplus: let it go soon.
    return ProcessPool(app, **{"num_idle_processes": 2, "idle_ttl": 0.1, **options})


async def replaced(pool: ProcessPool, lost: int) -> None:
    await eventually(lambda: pool.stats().zygote_pid not in (lost, None), "replacement of the zygote")
    assert is_gone(lost)


def ended(report: ExitReport) -> tuple[str, str, int | None, int | None]:
    return report.outcome, report.reason, report.exit_code, report.signal


async def test_S2_killed_while_idle_with_live_jobs(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
        jobs = {order: await pool.launch() for order in ("7", "crash", "fine", "cancel", "kill")}
        visits = {}
        for _ in jobs:
            visit = await stage.next("job")
            visits[visit.name] = visit
        kill(lost := zygote_pid(pool))
        await replaced(pool, lost)
        assert pool.stats().jobs == len(jobs)

        for order in ("7", "crash", "fine"):
            visits[jobs[order].id].order(order)
        jobs["cancel"].cancel("enough")
        kill(visits[jobs["kill"].id].pid)
        reports = {order: await job.wait() for order, job in jobs.items()}
        assert ended(reports["7"]) == ("failed", "exited", 7, None)
        assert ended(reports["crash"]) == ("killed", "signaled", None, signal.SIGSEGV)
        assert ended(reports["fine"]) == ("succeeded", "completed", 0, None)
        assert reports["fine"].result == "fine"
        assert ended(reports["cancel"]) == ("cancelled", "cancelled", 0, None)
        assert ended(reports["kill"]) == ("killed", "signaled", None, signal.SIGKILL)
        assert all(report.cpu_seconds and report.peak_memory_mb for report in reports.values())

        assert (await (await pool.launch("quick")).wait()).result == "done"
        assert pool.stats().zygote_restarts == 1
        await assert_recovered(pool, 2)
        assert set(stage.starts().values()) == {1}


async def test_S2_killed_again_and_again(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
        job = await pool.launch()
        visit = await stage.next("job")
        for _ in range(5):
            kill(lost := zygote_pid(pool))
            await replaced(pool, lost)
        visit.order("7")
        assert ended(await job.wait()) == ("failed", "exited", 7, None)
        await assert_recovered(pool, 2)


async def test_S2_what_a_dead_zygote_cannot_fork_is_put_down_to_its_loss(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
        lost = zygote_pid(pool)
        pidfd = os.pidfd_open(lost)
        kill(lost)
        select.select([pidfd], [], [])  # it is dead, and this event loop has had no turn to hear of it
        os.close(pidfd)
        pool.resize(8)
        await replaced(pool, lost)
        await assert_recovered(pool, 8)
        reports = [report for report in pool.recent_reports if report.pid is None]
        assert reports
        assert {report.detail for report in reports} == {"it could not be forked: its zygote was lost"}


async def test_S2_killed_with_a_dead_child_that_it_had_not_buried(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
        job = await pool.launch()
        visit = await stage.next("job")
        kill(lost := zygote_pid(pool), signal.SIGSTOP)
        visit.order("7")
        await wait_for_exit(os.pidfd_open(visit.pid))
        assert proc.stat(visit.pid).state == "Z"
        kill(lost)
        assert ended(await job.wait()) == ("failed", "exited", 7, None)
        await replaced(pool, lost)
        await assert_recovered(pool, 2)


async def test_S2_killed_then_what_a_job_leaves_behind_is_still_ended(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
        job = await pool.launch("grandchildren")
        visit = await stage.next("job")
        grandchildren = [int(pid) for (pid,) in stage.noted("grandchild")]
        assert len(grandchildren) == 2
        kill(lost := zygote_pid(pool))
        await replaced(pool, lost)
        assert not any(map(is_gone, grandchildren))  # they are the live job's still
        visit.order("7")
        report = await job.wait()
        assert ended(report) == ("failed", "exited", 7, None)
        assert report.descendants_killed == 2
        assert all(map(is_gone, grandchildren))
        await assert_recovered(pool, 2)


async def test_S2_killed_together_with_jobs_that_have_grandchildren(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
        jobs = [await pool.launch("grandchildren") for _ in range(2)]
        visits = [await stage.next("job") for _ in jobs]
        for pid in [lost := zygote_pid(pool), *(visit.pid for visit in visits)]:
            kill(pid)
        for job in jobs:
            assert ended(await job.wait()) == ("killed", "signaled", None, signal.SIGKILL)
        await replaced(pool, lost)
        assert all(is_gone(int(pid)) for (pid,) in stage.noted("grandchild"))
        await assert_recovered(pool, 2)


@pytest.mark.parametrize("after", [1, 4, 12])
async def test_S2_killed_in_the_middle_of_a_burst_of_forks(make_app: MakeApp, after: int) -> None:
    """Each accepted job runs once, whether its process was asked for, forked or warm by then."""
    async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
        live = await pool.launch()
        visit = await stage.next("job")
        lost = zygote_pid(pool)
        jobs = [pool.submit("quick", timeout=DEADLINE) for _ in range(20)]
        await eventually(lambda: len(stage.noted("start")) > after, "part of the burst")
        kill(lost)
        for job in jobs:
            assert ended(await job.wait()) == ("succeeded", "completed", 0, None)
        await replaced(pool, lost)
        visit.order("7")
        assert ended(await live.wait()) == ("failed", "exited", 7, None)
        await assert_recovered(pool, 2)
        assert stage.starts() == {job.id: 1 for job in [live, *jobs]}


HOLD = """
def hold():
    if os.path.exists(HOLD):
        with open(HELD, "a") as held:
            held.write(f"{os.getpid()} ")
        while True:
            signal.pause()

@app.prewarm
def prewarm(proc):
    if os.path.exists(HOLD):
        note("prewarmed", os.getpid())
"""


def held_app(stage: Stage, tmp_path: Path, where: str) -> tuple[str, Path, Path]:
    """An app whose forks hang at that place, as long as the first file is there; they say so in the second."""
    hold, held = tmp_path / "hold", tmp_path / "held"
    names = f"HOLD, HELD = {str(hold)!r}, {str(held)!r}"
    return stage.app(f"{names}\n{HOLD}\nos.register_at_fork({where}=hold)\n{APP}"), hold, held


@pytest.mark.parametrize("where", ["before", "after_in_parent", "after_in_child"])
async def test_S2_killed_while_a_fork_is_held(make_app: MakeApp, tmp_path: Path, where: str) -> None:
    """Before the fork; after it, but before the answer; and with a child that has not armed its lifeline."""
    async with Stage(make_app) as stage:
        app, hold, held = held_app(stage, tmp_path, where)
        async with pool_of(app, prewarm_timeout=5.0) as pool:
            job = await pool.launch()
            visit = await stage.next("job")
            await eventually(lambda: pool.stats().idle == 2)
            hold.touch()
            waiting = [pool.submit("quick", timeout=DEADLINE) for _ in range(4)]
            await wait_for_file(held)
            if where == "after_in_parent":  # the child is there by now, and unknown to the supervisor
                await eventually(lambda: stage.noted("prewarmed"), "a child that nobody knows of")
            hold.unlink()
            kill(lost := zygote_pid(pool))
            for each in waiting:
                assert ended(await each.wait()) == ("succeeded", "completed", 0, None)
            await replaced(pool, lost)
            for (pid,) in stage.noted("prewarmed"):
                await eventually(lambda pid=int(pid): is_gone(pid), "end of the unknown child")  # type: ignore[misc]
            visit.order("7")
            assert ended(await job.wait()) == ("failed", "exited", 7, None)
            await assert_recovered(pool, 2)
            assert stage.starts() == {each.id: 1 for each in [job, *waiting]}


@pytest.mark.parametrize("where", ["before", "after_in_parent"])
async def test_S2_a_fork_that_hangs_in_the_zygote(make_app: MakeApp, tmp_path: Path, where: str) -> None:
    async with Stage(make_app) as stage:
        app, hold, held = held_app(stage, tmp_path, where)
        async with pool_of(app) as pool:
            job = await pool.launch()
            visit = await stage.next("job")
            await eventually(lambda: pool.stats().idle == 2)
            lost = zygote_pid(pool)
            hold.touch()
            waiting = [pool.submit("quick", timeout=DEADLINE) for _ in range(3)]
            await wait_for_file(held)
            hold.unlink()
            for each in waiting:
                assert ended(await each.wait()) == ("succeeded", "completed", 0, None)
            await replaced(pool, lost)
            visit.order("7")
            assert ended(await job.wait()) == ("failed", "exited", 7, None)
            await assert_recovered(pool, 2)
            assert stage.starts() == {each.id: 1 for each in [job, *waiting]}


async def test_S2_a_fork_that_hangs_in_the_child(make_app: MakeApp, tmp_path: Path) -> None:
    async with Stage(make_app) as stage:
        app, hold, held = held_app(stage, tmp_path, "after_in_child")
        async with pool_of(app, prewarm_timeout=4.0) as pool:
            job = await pool.launch()
            visit = await stage.next("job")
            await eventually(lambda: pool.stats().idle == 2)
            zygote = zygote_pid(pool)
            hold.touch()
            waiting = pool.submit("quick", timeout=DEADLINE), pool.submit("quick", timeout=DEADLINE)
            await wait_for_file(held)
            hold.unlink()
            for each in waiting:
                assert ended(await each.wait()) == ("succeeded", "completed", 0, None)
            visit.order("7")
            assert ended(await job.wait()) == ("failed", "exited", 7, None)
            hung = {int(pid) for pid in held.read_text().split()}
            await eventually(lambda: hung <= {report.pid for report in pool.recent_reports}, "report of what hangs")
            assert all(map(is_gone, hung))
            reports = [report for report in pool.recent_reports if report.pid in hung]
            assert {report.reason for report in reports} == {"prewarm_timeout"}
            assert zygote_pid(pool) == zygote  # it is not to blame
            await assert_recovered(pool, 2)


async def test_S2_stopped(make_app: MakeApp) -> None:
    """It neither forks nor reaps any more, and does not die of itself."""
    async with Stage(make_app) as stage, pool_of(stage.app(APP), num_idle_processes=1) as pool:
        first, second = await pool.launch(), await pool.launch()
        visits = {visit.name: visit for visit in [await stage.next("job"), await stage.next("job")]}
        await eventually(lambda: pool.stats().idle == 1)
        kill(lost := zygote_pid(pool), signal.SIGSTOP)
        visits[first.id].order("7")
        quick = [pool.submit("quick", timeout=DEADLINE) for _ in range(3)]
        assert ended(await first.wait()) == ("failed", "exited", 7, None)
        for each in quick:
            assert ended(await each.wait()) == ("succeeded", "completed", 0, None)
        await replaced(pool, lost)
        visits[second.id].order("8")
        assert ended(await second.wait()) == ("failed", "exited", 8, None)
        await assert_recovered(pool, 1)
        assert set(stage.starts().values()) == {1}


async def test_S2_killed_while_a_job_is_stopped(make_app: MakeApp) -> None:
    """The kernel sends SIGHUP, and then SIGCONT, to the group of a job that is stopped when its zygote dies."""
    async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
        handle = await pool.launch()
        visit = await stage.next("job")
        kill(visit.pid, signal.SIGSTOP)
        await eventually(lambda: proc.stat(visit.pid).state == "T", "the stop")
        kill(lost := zygote_pid(pool))
        await replaced(pool, lost)
        visit.order("done")
        assert (await handle.wait()).result == "done"


async def test_S2_a_hangup_ends_a_job_whose_zygote_is_lost(make_app: MakeApp) -> None:
    """If it is somebody's, and not the kernel's."""
    async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
        handle = await pool.launch()
        visit = await stage.next("job")
        kill(lost := zygote_pid(pool))
        await replaced(pool, lost)
        kill(visit.pid, signal.SIGHUP)
        assert ended(await handle.wait()) == ("killed", "signaled", None, signal.SIGHUP)


LOADING = """
if os.path.exists(HOLD):
    with open(HELD, "a") as held:
        held.write(f"{os.getpid()} ")
    while os.path.exists(HOLD):
        time.sleep(0.001)
"""


@pytest.mark.parametrize("victim", ["old", "new", "both"])
async def test_S2_killed_during_a_reload_with_live_jobs(make_app: MakeApp, tmp_path: Path, victim: str) -> None:
    hold, held = tmp_path / "hold", tmp_path / "held"
    async with Stage(make_app) as stage:
        app = stage.app(f"HOLD, HELD = {str(hold)!r}, {str(held)!r}\n{LOADING}\n{APP}")
        async with pool_of(app) as pool:
            job = await pool.launch()
            visit = await stage.next("job")
            old = zygote_pid(pool)
            hold.touch()
            reloading = asyncio.create_task(pool.reload())
            new = int(await wait_for_file(held))
            if victim in ("old", "both"):
                kill(old)
                await eventually(lambda: is_gone(old))
            if victim in ("new", "both"):
                kill(new)
            hold.unlink()
            if victim == "old":
                await reloading
                assert zygote_pid(pool) == new
            else:
                with pytest.raises(AppLoadError, match="signal 9"):
                    await reloading
                await eventually(lambda: pool.stats().zygote_pid is not None, "a zygote")
                assert (zygote_pid(pool) == old) == (victim == "new")
            quick = await pool.launch("quick")
            assert ended(await quick.wait()) == ("succeeded", "completed", 0, None)
            visit.order("7")
            assert ended(await job.wait()) == ("failed", "exited", 7, None)
            await assert_recovered(pool, 2)
            assert stage.starts() == {job.id: 1, quick.id: 1}


def is_open(pool: ProcessPool) -> bool:
    try:
        pool.stats()
    except PoolClosed:
        return False
    return True


async def test_S2_lost_as_soon_as_it_has_loaded_the_app(make_app: MakeApp, tmp_path: Path) -> None:
    """However often that is: start() returns, the pool says what is wrong, and serves when it is right again."""
    flag = tmp_path / "broken"
    flag.touch()
    source = f"""
from greenroom.zygote.zygote import Zygote
serve = Zygote._serve_until_the_end

def serve_or_die(self):
    if os.path.exists({str(flag)!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    return serve(self)

Zygote._serve_until_the_end = serve_or_die

@app.entrypoint
async def entrypoint(ctx):
    return "served"
"""
    pool = ProcessPool(make_app(source), num_idle_processes=1)
    try:
        with suppress(AppLoadError):  # if its death was seen in the same event as its success
            await pool.start()
        if not is_open(pool):
            return
        assert not pool.stats().ready
        await eventually(lambda: pool.stats().breaker_open)
        assert "lost" in (pool.stats().breaker_cause or "")
        flag.unlink()
        await eventually(lambda: pool.stats().ready)
        assert (await (await pool.launch()).wait()).result == "served"
    finally:
        await pool.aclose()


HOGGED = APP + HOG + "app.preload(start_hog)\n"


@pytest.mark.alone  # it takes a whole CPU from everybody else
async def test_S2_a_zygote_that_is_starved_of_cpu_is_left_alone(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"num_idle_processes": 0, "prewarm_timeout": 50}
    async with Stage(make_app) as stage, pool_of(stage.app(HOGGED), **options) as pool:
        zygote = zygote_pid(pool)
        hog = int(stage.noted("hog")[0][0])
        await eventually(lambda: proc.stat(hog).state == "T")
        with starved(zygote, hog):
            jobs = [pool.submit("quick", timeout=50) for _ in range(4)]  # a moment's CPU is enough for one
            await eventually(lambda: "is starved of CPU" in caplog.text or pool.stats().zygote_pid != zygote)
            assert zygote_pid(pool) == zygote
        for job in jobs:
            assert ended(await job.wait()) == ("succeeded", "completed", 0, None)
        assert pool.stats().zygote_restarts == 0


CHANGING = """
VERSION = {version}

@app.prewarm
async def prewarm(proc):
    {prewarm}

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "stay":
        await on_stage("job", ctx.job.id)
    return VERSION
"""


async def test_S2_other_code_on_disk_is_proven_before_a_replaced_zygote_serves_it(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(CHANGING.format(version=1, prewarm="pass"))
        async with pool_of(app) as pool:
            events: list[Event] = []
            pool.subscribe(events.append)
            live = await pool.launch("stay")
            visit = await stage.next("job")
            Path(app.partition(":")[0]).write_text(
                Path(stage.app(CHANGING.format(version=22, prewarm="pass")).partition(":")[0]).read_text()
            )
            kill(lost := zygote_pid(pool))
            await replaced(pool, lost)
            assert (await (await pool.launch(timeout=DEADLINE)).wait()).result == 22
            assert [event.generation for event in events if isinstance(event, Reloaded)] == [2]
            visit.order("done")
            assert (await live.wait()).result == 1


async def test_S2_other_code_on_disk_that_does_not_become_warm_never_serves(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = stage.app(CHANGING.format(version=1, prewarm="pass"))
        async with pool_of(app, num_idle_processes=3) as pool:
            events: list[Event] = []
            pool.subscribe(events.append)
            source = Path(app.partition(":")[0])
            good = source.read_text()
            bad = Path(stage.app(CHANGING.format(version=22, prewarm="1 / 0")).partition(":")[0])
            source.write_text(bad.read_text())
            kill(zygote_pid(pool))
            await eventually(lambda: any(isinstance(event, ReloadFailed) for event in events), "a failed proof")
            assert (await (await pool.launch()).wait()).result == 1, "the old code's processes serve on"
            assert "division by zero" in (pool.stats().breaker_cause or "")
            source.write_text(good + "\n")  # it is tried again, and again, until it becomes warm
            await eventually(lambda: any(isinstance(event, Reloaded) for event in events), "new code that serves")
            assert (await (await pool.launch(timeout=DEADLINE)).wait()).result == 1
