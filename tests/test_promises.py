"""A reservation for a place in the queue: granted at once, if a process is certain to be idle in time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from faults.stage import Stage
from support import DEADLINE, eventually, idle_pids, is_gone, kill, zygote_pid

from greenroom import Job, LaunchError, NoCapacity, ProcessPool

MakeApp = Callable[[str], str]

STAGED = """
@app.prewarm
async def prewarm(proc):
    if os.path.exists(STAGE + ".slow"):
        await on_stage("prewarm", str(os.getpid()))

@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""


def slow(stage: Stage) -> Path:
    """Return the file that makes each prewarm wait for an order."""
    return stage.directory / "stage.slow"


@asynccontextmanager
async def taken_up(make_app: MakeApp, **options: Any) -> AsyncIterator[tuple[Stage, ProcessPool]]:
    """A pool that knows how long a process takes, whose one idle process is reserved, and whose next ones are slow."""
    async with Stage(make_app) as stage, ProcessPool(stage.app(STAGED), num_idle_processes=1, **options) as pool:
        await pool.launch("first")
        await eventually(lambda: idle_pids(pool))
        slow(stage).touch()
        await pool.reserve()
        yield stage, pool


async def test_a_promise_is_granted_before_its_process_is_warm_and_kept_when_it_is(make_app: MakeApp) -> None:
    async with taken_up(make_app) as (stage, pool):
        promised = [await pool.reserve(Job(name), timeout=DEADLINE, takes_promise=True) for name in ("a", "b")]
        assert [(one.state, one.pid) for one in promised] == [("waiting", None)] * 2
        handles = [one.launch(one.id) for one in promised]
        assert [handle.state for handle in handles] == ["waiting"] * 2
        for _ in range(2):
            (await stage.next("prewarm")).order("go")
        reports = [await handle.wait() for handle in handles]
        assert [report.result for report in reports] == ["a", "b"]
        assert {report.launch_type for report in reports} == {"cold"}


async def test_promises_are_kept_in_the_order_of_the_offers(make_app: MakeApp) -> None:
    """Also if the later one is launched first: the earlier one has the next process."""
    async with taken_up(make_app) as (stage, pool):
        early, late = [await pool.reserve(timeout=DEADLINE, takes_promise=True) for _ in range(2)]
        handle = late.launch("late")
        (await stage.next("prewarm")).order("go")
        await eventually(lambda: early.state == "reserved")
        assert handle.state == "waiting"
        early.release()
        assert (await handle.wait()).result == "late"


async def test_nothing_is_promised_before_a_process_was_ever_warm(make_app: MakeApp) -> None:
    """It is not known yet how long one takes. The reservation waits for its process."""
    async with Stage(make_app) as stage, ProcessPool(stage.app(STAGED), num_idle_processes=0) as pool:
        first = await pool.reserve(timeout=DEADLINE, takes_promise=True)
        assert first.pid is not None
        first.release()


async def test_a_promise_outlives_the_zygote_and_the_process_that_was_on_its_way(make_app: MakeApp) -> None:
    async with taken_up(make_app) as (stage, pool):
        promised = await pool.reserve(timeout=DEADLINE, takes_promise=True)
        visit = await stage.next("prewarm")
        lost = zygote_pid(pool)
        kill(lost)
        kill(visit.pid)
        await eventually(lambda: is_gone(lost))
        slow(stage).unlink()
        report = await promised.launch("kept", timeout=DEADLINE).wait()
        assert (report.outcome, report.result) == ("succeeded", "kept")
        await eventually(lambda: idle_pids(pool))


async def test_a_promise_that_cannot_be_kept_is_reported_in_time(make_app: MakeApp) -> None:
    async with taken_up(make_app) as (stage, pool):
        promised = await pool.reserve(timeout=DEADLINE, takes_promise=True)
        handle = promised.launch(timeout=0.2)
        with pytest.raises(NoCapacity) as rejected:
            await handle.started()
        assert rejected.value.reason == "warming"
        report = await handle.wait()
        assert (report.outcome, report.reason) == ("failed", "start_timeout")
        (await stage.next("prewarm")).order("go")


async def test_a_promise_that_is_not_launched_expires(make_app: MakeApp) -> None:
    async with taken_up(make_app, reservation_timeout=0.2) as (stage, pool):
        promised = await pool.reserve(timeout=DEADLINE, takes_promise=True)
        await eventually(lambda: promised.state == "ended")
        with pytest.raises(LaunchError, match="not reserved any more"):
            promised.launch()
        (await stage.next("prewarm")).order("go")
