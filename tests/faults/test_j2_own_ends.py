"""A job that has begun to end by itself: nothing bounds that end but its own budget, a drain, and an operator."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest
from stage import Stage, assert_recovered
from support import eventually
from test_s10_malformed_frames import FIND_CHANNEL

from greenroom import JobHandle, ProcessPool
from greenroom.exit_report import ExitReport

MakeApp = Callable[[str], str]

APP = """
import atexit

app.end_timeout = {end_timeout}

@app.entrypoint
async def entrypoint(ctx):
    def callback():
        note("callback")
    ctx.add_shutdown_callback(callback)
    how = ctx.job.metadata
    if how == "ordered first":
        block_on_stage("before")
    ctx.begin_own_end()
    if how == "hang":
        await asyncio.Event().wait()
    if how == "linger":
        atexit.register(threading.Event().wait)
    if await on_stage("ending") == "take long":
        await asyncio.sleep(3.0)  # longer than it would have if it had been told to end first
    return "by itself"
"""

SHORT = {"num_idle_processes": 1, "shutdown_timeout": 1.0, "cleanup_timeout": 2.5}


async def ending(stage: Stage, handle: JobHandle) -> None:
    await eventually(lambda: handle.state == "draining", "a job that ends by itself")


@pytest.mark.parametrize("how", ["cancelled later", "ordered first"])
async def test_an_own_end_has_its_time_whatever_order_comes(make_app: MakeApp, how: str) -> None:
    app = APP.format(end_timeout=60.0)
    async with Stage(make_app) as stage, ProcessPool(stage.app(app), **SHORT) as pool:  # type: ignore[arg-type]
        handle = await pool.launch(how)
        if how == "ordered first":  # the order is on its way when the end begins, and is not read yet
            before = await stage.next("before")
            handle.cancel("told", unless_ending=True)
            before.order("go on")
        visit = await stage.next("ending")
        handle.cancel("told", unless_ending=True)
        visit.order("take long")
        report = await handle.wait()
        assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", "by itself")
        assert stage.noted("callback")
        await assert_recovered(pool, 1)


async def test_an_own_end_is_bounded_by_what_the_app_has_told(make_app: MakeApp) -> None:
    app = APP.format(end_timeout=0.5)
    async with Stage(make_app) as stage, ProcessPool(stage.app(app), **SHORT) as pool:  # type: ignore[arg-type]
        report = await (await pool.launch("hang")).wait()
        assert (report.outcome, report.reason, report.signal) == ("killed", "shutdown_timeout", signal.SIGKILL)
        assert "had begun to end by itself" in report.detail
        assert report.stack_dump
        await assert_recovered(pool, 1)


async def test_an_own_end_that_a_job_only_claims_is_bounded(make_app: MakeApp) -> None:
    app = f"""{FIND_CHANNEL}
@app.entrypoint
async def entrypoint(ctx):
    channel(socket.SOCK_STREAM).sendall(m.encode(m.Ending()))
    await asyncio.Event().wait()
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(app), **SHORT) as pool:  # type: ignore[arg-type]
        report = await (await pool.launch()).wait()
        assert (report.outcome, report.reason) == ("killed", "shutdown_timeout")
        await assert_recovered(pool, 1)


@pytest.mark.parametrize("end_timeout", ['float("inf")', 'float("nan")', "-1.0"])
async def test_a_budget_that_is_no_time_is_none_or_the_longest(make_app: MakeApp, end_timeout: str) -> None:
    app = APP.format(end_timeout=end_timeout)
    async with Stage(make_app) as stage, ProcessPool(stage.app(app), **SHORT) as pool:  # type: ignore[arg-type]
        handle = await pool.launch()
        (await stage.next("ending")).order("leave")
        assert (await handle.wait()).outcome == "succeeded"


async def bounded_by_an_operator(pool: ProcessPool, handle: JobHandle) -> ExitReport:
    handle.cancel("enough")
    return await handle.wait()


async def bounded_by_a_drain(pool: ProcessPool, handle: JobHandle) -> ExitReport:
    await pool.drain(0.5)
    return await handle.wait()


@pytest.mark.parametrize("bound", [bounded_by_an_operator, bounded_by_a_drain])
async def test_an_own_end_is_bounded_by_an_operator_and_by_a_drain(
    make_app: MakeApp, bound: Callable[[ProcessPool, JobHandle], asyncio.Future[ExitReport]]
) -> None:
    app = APP.format(end_timeout=1000.0)
    async with Stage(make_app) as stage, ProcessPool(stage.app(app), **SHORT) as pool:  # type: ignore[arg-type]
        handle = await pool.launch("hang")
        await ending(stage, handle)
        handle.cancel("told", unless_ending=True)
        report = await bound(pool, handle)
        assert (report.outcome, report.reason, report.signal) == ("succeeded", "completed", None), report.detail
        assert stage.noted("callback")


async def test_an_exit_that_takes_long_after_an_own_end_is_not_the_orders_doing(make_app: MakeApp) -> None:
    app = APP.format(end_timeout=60.0)
    async with Stage(make_app) as stage, ProcessPool(stage.app(app), **SHORT) as pool:  # type: ignore[arg-type]
        handle = await pool.launch("linger")
        visit = await stage.next("ending")
        handle.cancel("told", unless_ending=True)
        visit.order("leave")
        report = await handle.wait()
        assert (report.outcome, report.reason) == ("succeeded", "shutdown_timeout")
        assert "clean-up" in report.detail
        assert report.result == "by itself"
        await assert_recovered(pool, 1)


async def test_an_exit_that_takes_long_after_an_end_before_the_order_is_not_its_doing(make_app: MakeApp) -> None:
    """The order is on its way as the entrypoint returns, without any own end that was told of."""
    app = """
import atexit

@app.entrypoint
async def entrypoint(ctx):
    block_on_stage("before")
    atexit.register(threading.Event().wait)
    return "by itself"
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(app), **SHORT) as pool:  # type: ignore[arg-type]
        handle = await pool.launch()
        visit = await stage.next("before")
        handle.cancel("told")
        visit.order("leave")
        report = await handle.wait()
        assert (report.outcome, report.reason) == ("succeeded", "shutdown_timeout"), report.detail
        assert "clean-up" in report.detail
        await assert_recovered(pool, 1)
