"""S5: a drain counts jobs from the moment they are accepted. (Signals to the command are tested with it.)"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from stage import PLAIN, Stage, starting
from support import DEADLINE, eventually, kill, zygote_pid

from greenroom import LaunchError, NoCapacity, ProcessPool
from greenroom.pool.events import ProcessEnded

MakeApp = Callable[[str], str]

SLOW_TO_WARM = f"""
@app.prewarm
async def prewarm(proc):
    await on_stage("prewarm")
{PLAIN}"""


async def test_S5_a_drain_waits_for_jobs_that_wait_for_a_process(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(SLOW_TO_WARM), num_idle_processes=0) as pool:
        running = pool.submit("stay")
        (await stage.next("prewarm")).order("warm")
        visit = await stage.next("job")
        waiting = [pool.submit(), pool.submit()]
        prewarms = [await stage.next("prewarm") for _ in waiting]
        assert pool.stats().waiting == 2

        draining = asyncio.create_task(pool.drain(60.0))
        await eventually(lambda: pool.stats().not_ready_reason == "draining")
        assert pool.stats().jobs == 3
        with pytest.raises(NoCapacity) as turned_down:
            await pool.launch()
        assert turned_down.value.reason == "draining"

        for prewarm in prewarms:
            assert not draining.done()
            prewarm.order("warm")
        for job in waiting:
            assert (await job.wait()).reason == "completed"
        assert not draining.done()
        visit.order("leave")
        assert (await running.wait()).reason == "completed"
        await draining
        assert pool.processes == ()
        assert stage.starts() == {job.id: 1 for job in [running, *waiting]}


async def test_S5_a_drain_does_not_wait_for_a_process_that_nobody_wants(make_app: MakeApp) -> None:
    options = {"num_idle_processes": 0, "prewarm_timeout": DEADLINE * 4}
    async with Stage(make_app) as stage, ProcessPool(stage.app(SLOW_TO_WARM), **options) as pool:
        ends: list[ProcessEnded] = []
        pool.subscribe(lambda event: ends.append(event) if isinstance(event, ProcessEnded) else None)
        pool.resize(2)
        for _ in range(2):
            await stage.next("prewarm")  # and never becomes warm
        await pool.drain(DEADLINE * 4)
        assert {end.report.detail for end in ends} == {"the pool is draining"}
        assert pool.processes == ()


async def test_S5_a_pool_that_drains_does_not_go_on_to_start(make_app: MakeApp) -> None:
    """What it waited for does not come any more."""
    held = PLAIN + '\n@app.prewarm\ndef prewarm(proc):\n    block_on_stage("prewarm")\n'
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(held), num_idle_processes=1, prewarm_timeout=50)
        async with starting(pool) as start:
            await stage.next("prewarm")
            await pool.drain(3600)
            async with asyncio.timeout(DEADLINE):
                await start


async def test_S5_a_drain_that_takes_too_long_ends_jobs_in_every_phase(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(SLOW_TO_WARM), num_idle_processes=0) as pool:
        running = pool.submit("stay")
        (await stage.next("prewarm")).order("warm")
        await stage.next("job")
        waiting = pool.submit("stay")
        await stage.next("prewarm")
        await pool.drain(0.2)
        assert pool.processes == ()
        for job in (running, waiting):
            report = await job.wait()
            assert (report.outcome, report.reason) == ("cancelled", "drained")
            assert "drained" in report.detail
        with pytest.raises(LaunchError, match="never started"):
            await waiting.started()
        assert stage.starts() == {running.id: 1}


async def test_S5_a_drain_goes_on_when_the_zygote_is_lost(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(PLAIN), num_idle_processes=2) as pool:
        job = await pool.launch("stay")
        visit = await stage.next("job")
        draining = asyncio.create_task(pool.drain(60.0))
        await eventually(lambda: pool.stats().not_ready_reason == "draining")
        kill(zygote_pid(pool))
        visit.order("leave")
        assert (await job.wait()).reason == "completed"
        await draining
        assert pool.processes == ()
