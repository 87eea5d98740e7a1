"""P8: a job is cancelled in every state, twice, and while it waits; one that has not started never does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest
from stage import HELD_WHEN_CLAIMED, PLAIN, Stage, assert_recovered, starting, steady
from support import eventually, kill

from greenroom import JobHandle, LaunchError, ProcessPool

MakeApp = Callable[[str], str]

HELD_IN_PREWARM = PLAIN + "\n@app.prewarm\nasync def prewarm(proc):\n    await on_stage('prewarm')\n"

HELD_AT_THE_END = """
@app.entrypoint
async def entrypoint(ctx):
    ctx.add_shutdown_callback(lambda: on_stage("callback", ctx.job.id))
    return os.getpid()
"""


def cancel_twice(handle: JobHandle) -> None:
    handle.cancel("the caller hung up")
    handle.cancel("and again, for another reason")


async def assert_never_started(handle: JobHandle) -> None:
    with pytest.raises(LaunchError, match=r"never started: the caller hung up|did not start: the caller hung up"):
        await handle.started()
    report = await handle.wait()
    assert (report.outcome, report.reason, report.detail) == ("cancelled", "cancelled", "the caller hung up")
    assert report.timings.started is None
    handle.cancel("long after")
    assert (handle.state, await handle.wait()) == ("ended", report)


async def test_P8_cancelled_while_it_waits_for_a_process(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(HELD_IN_PREWARM), **steady(1), prewarm_timeout=50)
        async with starting(pool):
            visit = await stage.next("prewarm")
            cancelled, wanted = pool.submit(timeout=50), pool.submit(timeout=50)
            visits = [visit, await stage.next("prewarm"), await stage.next("prewarm")]
            assert cancelled.state == "waiting"
            cancel_twice(cancelled)
            assert cancelled.state == "ended"  # at once, whatever processes are doing
            await assert_never_started(cancelled)
            for visit in visits:
                visit.order("go on")
            assert (await wanted.wait()).reason == "completed"
            assert stage.starts() == {wanted.id: 1}


async def test_P8_cancelled_in_the_turn_of_its_launch(make_app: MakeApp) -> None:
    """It has a process already, which may or may not have begun; what is reported is what happened."""
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(3)) as pool:
        for _ in range(10):
            handles = [pool.submit("stay") for _ in range(3)]
            for handle in handles:
                cancel_twice(handle)
            for handle in handles:
                report = await handle.wait()
                assert (report.outcome, report.reason) == ("cancelled", "cancelled")
                assert stage.starts()[handle.id] <= (report.timings.started is not None)
            await assert_recovered(pool, 3)


async def test_P8_cancelled_while_its_process_has_not_acknowledged_it(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(HELD_WHEN_CLAIMED), **steady(1)) as pool:
        handle = pool.submit()
        visit = await stage.next("claimed")
        assert handle.state == "starting"
        cancel_twice(handle)
        await assert_never_started(handle)
        await visit.left()
        await assert_recovered(pool, 1)
        assert stage.starts() == {}
        assert stage.is_empty("claimed")  # and was given to no other


async def test_P8_cancelled_between_the_death_of_one_process_and_the_next(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(HELD_WHEN_CLAIMED), **steady(1)) as pool:
        handle = pool.submit(timeout=50)
        victim = await stage.next("claimed")
        kill(victim.pid)
        await eventually(lambda: handle.pid != victim.pid)  # it waits again, or has the next one
        cancel_twice(handle)
        await assert_never_started(handle)
        await assert_recovered(pool, 1)
        assert stage.starts() == {}


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
async def test_P8_cancelled_while_its_process_is_dying_unacknowledged(make_app: MakeApp, signum: int) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(HELD_WHEN_CLAIMED), **steady(2)) as pool:
        handle = pool.submit()
        visit = await stage.next("claimed")
        kill(visit.pid, signum)
        cancel_twice(handle)
        with pytest.raises(LaunchError):
            await handle.started()
        report = await handle.wait()
        assert (report.outcome, report.reason) == ("cancelled", "cancelled")
        await assert_recovered(pool, 2)
        assert stage.starts() == {}


async def test_P8_cancelled_while_it_runs(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(1)) as pool:
        handle = await pool.launch("stay")
        await stage.next("job")
        cancel_twice(handle)
        assert handle.state == "ending"
        report = await handle.wait()
        assert (report.outcome, report.reason, report.detail) == ("cancelled", "cancelled", "the caller hung up")
        assert report.exit_code == 0
        cancel_twice(handle)
        assert await handle.wait() is report
        await assert_recovered(pool, 1)
        assert stage.starts() == {handle.id: 1}


async def test_P8_cancelled_while_it_ends_by_itself(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(HELD_AT_THE_END), **steady(1)) as pool:
        handle = await pool.launch()
        callback = await stage.next("callback")
        await eventually(lambda: handle.state == "draining")
        cancel_twice(handle)  # too late: it has ended, and goes on to end in order
        callback.order("go on")
        report = await handle.wait()
        assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", handle.pid)
        await assert_recovered(pool, 1)


async def test_P8_cancelled_while_it_is_being_cancelled_and_then_killed_from_outside(make_app: MakeApp) -> None:
    """Who decided? The one who sent the signal, once that is what ended it in mid-job."""
    stubborn = """
@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    await ctx.wait_for_shutdown()
    await on_stage("told")
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(stubborn), **steady(1)) as pool:
        handle = await pool.launch()
        await eventually(stage.starts)
        cancel_twice(handle)
        visit = await stage.next("told")
        cancel_twice(handle)
        kill(visit.pid)
        report = await handle.wait()
        assert (report.outcome, report.reason, report.signal) == ("killed", "signaled", signal.SIGKILL)
        await assert_recovered(pool, 1)


async def test_P8_a_launch_whose_caller_gives_up_is_cancelled(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(HELD_IN_PREWARM), **steady(1), prewarm_timeout=50)
        async with starting(pool):
            visits = [await stage.next("prewarm")]
            launching = asyncio.create_task(pool.launch(timeout=50))
            visits.append(await stage.next("prewarm"))
            assert pool.stats().waiting == 1
            launching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await launching
            assert (pool.stats().waiting, pool.stats().jobs) == (0, 0)
            for visit in visits:
                visit.order("go on")
            await eventually(lambda: pool.stats().idle == 2)
            assert stage.starts() == {}
