"""P10: claims that race idle expiry, resize and reload: every accepted job runs, and runs once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from stage import PLAIN, Stage, assert_recovered, steady
from support import DEADLINE, eventually, idle_pids

from greenroom import JobHandle, PrewarmError, ProcessPool

MakeApp = Callable[[str], str]


async def assert_each_ran_once(stage: Stage, handles: list[JobHandle]) -> None:
    reports = [await handle.wait() for handle in handles]
    assert {(report.outcome, report.reason) for report in reports} == {("succeeded", "completed")}
    assert stage.starts() == {handle.id: 1 for handle in handles}
    assert len({report.pid for report in reports}) == len(handles)


@pytest.mark.parametrize("order", ["launch first", "resize first", "around"])
async def test_P10_claim_and_resize_in_one_turn(make_app: MakeApp, order: str) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(4)) as pool:
        before = idle_pids(pool)
        handles = []
        if order != "resize first":
            handles += [pool.submit(timeout=DEADLINE) for _ in range(2)]
        pool.resize(0)
        if order != "launch first":
            handles += [pool.submit(timeout=DEADLINE) for _ in range(2)]
        await assert_each_ran_once(stage, handles)
        await assert_recovered(pool, 0)
        retired = [report for report in pool.recent_reports if report.job_id is None]
        assert {(report.outcome, report.reason, report.exit_code) for report in retired} == {
            ("cancelled", "idle_expired", 0)
        }
        assert {report.pid for report in retired} == set(before) - {handle.pid for handle in handles}


async def test_P10_claims_while_the_pool_is_resized_all_the_time(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(4)) as pool:
        handles = []
        for turn in range(60):
            pool.resize(turn % 5, max_idle_processes=4)
            handles.append(pool.submit(timeout=DEADLINE))
            pool.resize((turn * 3) % 5)
            if turn % 4 == 0:
                await handles[-1].started()
        await assert_each_ran_once(stage, handles)
        pool.resize(3, max_idle_processes=3)
        await assert_recovered(pool, 3)


async def test_P10_claims_while_idle_processes_expire(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), num_idle_processes=0, idle_ttl=0.001) as pool:
        handles: list[JobHandle] = []
        for _ in range(4):
            pool.resize(6)
            await eventually(lambda: pool.stats().idle >= 6)
            pool.resize(2, max_idle_processes=6)  # surplus, within the bound: it stays until it expires
            await eventually(lambda: "killing" in {process.state for process in pool.processes})
            # Some are on their way out, and still there; and some of the others will be claimed.
            handles += [pool.submit(timeout=DEADLINE) for _ in range(4)]
        await assert_each_ran_once(stage, handles)
        expired = {report.pid for report in pool.recent_reports if report.reason == "idle_expired"}
        assert expired.isdisjoint(handle.pid for handle in handles)
        pool.resize(1, max_idle_processes=1)
        await assert_recovered(pool, 1)


VERSION = "VERSION = 1\n"


def new_version(reference: str, old: str, new: str) -> None:
    """Replace the app's file in one step, as a deployment does."""
    path = Path(reference.removesuffix(":app"))
    fresh = path.with_suffix(".new")
    fresh.write_text(path.read_text().replace(old, new))
    fresh.replace(path)


async def test_P10_claims_while_the_code_is_reloaded(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        reference = stage.app(VERSION + PLAIN.replace("os.getpid()", "VERSION"))
        async with ProcessPool(reference, **steady(3), max_jobs=10_000) as pool:
            old = await pool.launch("stay")
            visit = await stage.next("job")
            new_version(reference, "VERSION = 1", "VERSION = 2")
            reload = asyncio.create_task(pool.reload())
            handles = []
            while not reload.done():
                handles.append(await pool.launch(timeout=DEADLINE))
                handles += [pool.submit(timeout=DEADLINE) for _ in range(2)]  # one may wait at any moment
                await handles[-1].started()
            await reload
            after = [pool.submit(timeout=DEADLINE) for _ in range(8)]
            assert {(await handle.wait()).result for handle in after} == {2}
            assert {(await handle.wait()).result for handle in handles} <= {1, 2}
            assert old.state == "running"  # the old code's job goes on
            visit.order("leave")
            await assert_each_ran_once(stage, [old, *handles, *after])
            assert (await old.wait()).result == 1
            await assert_recovered(pool, 3)
            assert {process.generation for process in pool.processes} == {2}


async def test_P10_claim_in_the_turn_in_which_a_reload_retires_the_idle(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(2)) as pool:
        handles = []

        def launch(reload: asyncio.Task[None]) -> None:
            handles.extend(pool.submit(timeout=DEADLINE) for _ in range(4))

        for _ in range(3):
            reload = asyncio.create_task(pool.reload())
            reload.add_done_callback(launch)
            await reload
            await eventually(lambda: pool.stats().waiting == 0)
        await assert_each_ran_once(stage, handles)
        assert len(handles) == 12
        await assert_recovered(pool, 2)


async def test_P10_a_reload_that_fails_goes_back_to_code_without_a_process(make_app: MakeApp) -> None:
    """All idle processes of the old code are claimed, and end, while the new code is on trial."""
    source = VERSION + PLAIN + "\n@app.prewarm\nasync def prewarm(p):\n    if VERSION == 2:\n"
    source += "        await on_stage('trial')\n        raise RuntimeError('bad release')\n"
    async with Stage(make_app) as stage:
        reference = stage.app(source)
        async with ProcessPool(reference, **steady(2), max_concurrent_prewarms=2) as pool:
            new_version(reference, "VERSION = 1", "VERSION = 2")
            reload = asyncio.create_task(pool.reload())
            trials = [await stage.next("trial"), await stage.next("trial")]
            handles = [await pool.launch() for _ in range(2)]
            await assert_each_ran_once(stage, handles)  # now the old code has no process left
            for trial in trials:
                trial.order("fail")
            with pytest.raises(PrewarmError, match="bad release"):
                await reload
            await assert_recovered(pool, 2)
            assert pool.stats().generation == 1
            handles.append(await pool.launch())
            await assert_each_ran_once(stage, handles)
            await assert_recovered(pool, 2)
