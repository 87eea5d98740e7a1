"""P1, P7, P9: many launches, one after the other and all at once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations
from typing import NamedTuple

import pytest
from stage import PLAIN, Stage, assert_recovered, starting, steady
from support import DEADLINE, eventually

from greenroom import ExitReport, JobHandle, NoCapacity, ProcessPool
from greenroom.pool.events import JobEnded

MakeApp = Callable[[str], str]


async def test_P1_each_of_30_jobs_that_never_end_starts_while_all_before_it_run(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(3), max_jobs=30) as pool:
        handles, visits = [], []
        for _ in range(30):
            await eventually(lambda: pool.stats().idle > 0, "an idle process, whoever else is running")
            handles.append(await pool.launch("stay"))
            visits.append(await stage.next("job"))
        assert {handle.state for handle in handles} == {"running"}
        assert {handle.launch_type for handle in handles} == {"warm"}  # no later one had to wait for a process
        assert len({handle.pid for handle in handles}) == 30
        assert pool.stats().jobs == 30
        await eventually(lambda: pool.stats().idle >= 3, "idle processes beside 30 that run")
        await leave_and_check(stage, handles, 30)
        assert visits


async def test_P1_30_jobs_that_never_end_are_launched_at_once(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(3), max_jobs=30) as pool:
        handles = await asyncio.gather(*(pool.launch("stay", timeout=DEADLINE) for _ in range(30)))
        assert {handle.state for handle in handles} == {"running"}
        await leave_and_check(stage, handles, 30)


async def test_P1_warming_goes_on_one_at_a_time_while_an_earlier_job_runs(make_app: MakeApp) -> None:
    """The fault that Greenroom began with: one idle process, one prewarm at a time, and a job that never ends."""
    told = PLAIN + "\n@app.prewarm\nasync def prewarm(proc):\n    await on_stage('prewarm')\n"
    options = {**steady(1), "max_concurrent_prewarms": 1, "prewarm_timeout": DEADLINE}
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(told), **options)
        async with starting(pool):
            (await stage.next("prewarm")).order("go on")
            await eventually(lambda: pool.stats().idle == 1, "the first idle process")
            first = await pool.launch("stay")
            await stage.next("job")  # and is left there
            (await stage.next("prewarm")).order("go on")
            await eventually(lambda: pool.stats().idle == 1, "a second idle process while the first job runs")
            second = await pool.launch("stay")
            await stage.next("job")
            await stage.next("prewarm")  # the third one: both jobs still run
            assert (first.state, second.state) == ("running", "running")
            assert (first.launch_type, second.launch_type) == ("warm", "warm")
            assert first.pid != second.pid


async def test_P1_a_launch_waits_for_nobody_elses_prewarm(make_app: MakeApp) -> None:
    """One job runs for ever and its replacement warms up for ever; the next idle process serves all the same."""
    held_after_two = PLAIN + "\n@app.prewarm\nasync def prewarm(proc):\n    await on_stage('prewarm')\n"
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(held_after_two), **steady(2), prewarm_timeout=50)
        async with starting(pool):
            for _ in range(2):
                (await stage.next("prewarm")).order("go on")
            await eventually(lambda: pool.stats().idle == 2)
            handles = []
            for _ in range(2):
                handles.append(await pool.launch("stay"))
                await stage.next("prewarm")  # and is left there
            assert [handle.launch_type for handle in handles] == ["warm", "warm"]
            await eventually(lambda: stage.starts() == {handle.id: 1 for handle in handles}, "both at work")


async def leave_and_check(stage: Stage, handles: list[JobHandle], number: int) -> None:
    # A job is acknowledged before its entrypoint is entered.
    await eventually(lambda: stage.starts() == {handle.id: 1 for handle in handles}, "all at work")
    for handle in handles:
        handle.cancel("the test is over")
    reports = [await handle.wait() for handle in handles]
    assert {(report.outcome, report.reason) for report in reports} == {("cancelled", "cancelled")}
    assert stage.starts() == {handle.id: 1 for handle in handles}
    assert len(handles) == number


async def test_P7_a_burst_of_100_on_4_idle_is_served_in_order(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        options = {"num_idle_processes": 4, "max_idle_processes": 4, "idle_ttl": 0.1}
        async with ProcessPool(stage.app(), **options) as pool:
            handles = [pool.submit(timeout=50) for _ in range(100)]
            assert [handle.launch_type for handle in handles] == ["warm"] * 4 + ["cold"] * 96
            await asyncio.gather(*(handle.started() for handle in handles))
            reports = [await handle.wait() for handle in handles]
            assert {report.reason for report in reports} == {"completed"}
            claimed = [report.timings.claimed for report in reports]
            assert claimed == sorted(claimed)  # first come, first served
            assert stage.starts() == {handle.id: 1 for handle in handles}
            assert len({report.pid for report in reports}) == 100
            await assert_recovered(pool, 4)


async def test_P7_no_launch_waits_past_its_deadline(make_app: MakeApp) -> None:
    """Four are served at once; nothing becomes warm for the others, each of which has a deadline of its own."""
    held = PLAIN + "\n@app.prewarm\nasync def prewarm(proc):\n    await on_stage('prewarm')\n"
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(held), **steady(4), max_concurrent_prewarms=8, prewarm_timeout=50)
        async with starting(pool):
            for _ in range(4):
                (await stage.next("prewarm")).order("go on")
            await eventually(lambda: pool.stats().idle == 4)
            handles = [pool.submit(timeout=50) for _ in range(4)]
            # The later ones have the shorter deadlines: a queue that only looks at its head would miss them.
            ends: list[str | None] = []
            pool.subscribe(lambda event: ends.append(event.report.job_id) if isinstance(event, JobEnded) else None)
            late, spans = [], []
            for number in range(96):
                begin, timeout = time.monotonic(), 1.0 - number / 100
                late.append(pool.submit(timeout=timeout))
                spans.append(Span(begin, time.monotonic(), timeout))
            for handle in late:
                with pytest.raises(NoCapacity) as refusal:
                    await handle.started()
                assert refusal.value.reason == "warming"
                assert refusal.value.retry_after > 0
            for handle in late:
                report = await handle.wait()
                assert (report.outcome, report.reason) == ("failed", "start_timeout")
                assert "no process became warm in time" in report.detail
                assert report.pid is None
            await eventually(lambda: {handle.id for handle in late} <= set(ends), "their ends")
            places = [ends.index(handle.id) for handle in late]
            for (first, first_place), (second, second_place) in combinations(zip(spans, places, strict=True), 2):
                assert first_place > second_place or not second.is_due_before(first)
            assert pool.stats().waiting == 0
            reports = [await handle.wait() for handle in handles]
            assert {report.outcome for report in reports} == {"succeeded"}
            for _ in range(4):
                (await stage.next("prewarm")).order("go on")
            await release_all(stage, pool)
            assert stage.starts() == {handle.id: 1 for handle in handles}


class Span(NamedTuple):
    """When a job was submitted, which may have taken a while, and its deadline from then."""

    begin: float
    end: float
    timeout: float

    def is_due_before(self, first: Span) -> bool:
        """Whether its deadline is the earlier one for certain, although it was submitted after the other."""
        return self.end - first.begin < first.timeout - self.timeout


async def release_all(stage: Stage, pool: ProcessPool) -> None:
    """Let everybody go on who still comes on stage for its prewarm."""
    while pool.stats().warming:
        if stage.is_empty("prewarm"):
            await asyncio.sleep(0)
        else:
            (await stage.next("prewarm")).order("go on")


async def test_P7_surplus_idle_processes_are_reaped_and_told_apart(make_app: MakeApp) -> None:
    held = PLAIN + "\n@app.prewarm\nasync def prewarm(proc):\n    await on_stage('prewarm')\n"
    options = {"num_idle_processes": 2, "max_idle_processes": 2, "max_concurrent_prewarms": 20}
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(held), **options, prewarm_timeout=50, idle_ttl=0.2)
        async with starting(pool):
            for _ in range(2):
                (await stage.next("prewarm")).order("go on")
            await eventually(lambda: pool.stats().idle == 2)
            handles = [pool.submit("stay", timeout=50) for _ in range(12)]
            warming = [await stage.next("prewarm") for _ in range(12)]  # 10 for those who wait, 2 idle to be
            for handle in handles[2:]:
                handle.cancel("hung up while it waited")
            for visit in warming:
                visit.order("go on")
            await eventually(lambda: len(expired(pool)) == 10, "10 of 12 idle processes reaped")
            await eventually(lambda: pool.stats().idle == 2)
            assert {handle.state for handle in handles[:2]} == {"running"}  # untouched
            assert all(report.exit_code == 0 and report.outcome == "cancelled" for report in expired(pool))
            assert pool.stats().breaker_cause is None
            for _ in range(2):
                (await stage.next("job")).order("leave")
            assert [(await handle.wait()).outcome for handle in handles[:2]] == ["succeeded"] * 2
            await assert_recovered(pool, 2)
            assert stage.starts() == {handle.id: 1 for handle in handles[:2]}


def expired(pool: ProcessPool) -> list[ExitReport]:
    return [report for report in pool.recent_reports if report.reason == "idle_expired"]


async def test_P9_no_more_than_max_jobs_are_accepted_in_one_turn(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(2), max_jobs=5) as pool:
        for _ in range(2):  # the places are given back, each exactly once
            results = await asyncio.gather(
                *(pool.launch("stay", timeout=DEADLINE) for _ in range(60)), return_exceptions=True
            )
            accepted = [result for result in results if isinstance(result, JobHandle)]
            refused = [result for result in results if isinstance(result, NoCapacity)]
            assert (len(accepted), len(refused)) == (5, 55)
            assert {(error.reason, error.retry_after > 0) for error in refused} == {("full", True)}
            stats = pool.stats()
            assert (stats.jobs, stats.ready, stats.not_ready_reason) == (5, False, "full")
            for _ in accepted:
                (await stage.next("job")).order("leave")
            assert [(await handle.wait()).reason for handle in accepted] == ["completed"] * 5
            await assert_recovered(pool, 2)
        assert len(stage.starts()) == 10
        assert set(stage.starts().values()) == {1}


async def test_P9_a_place_is_taken_until_the_process_is_gone(make_app: MakeApp) -> None:
    """Waiting, cancelled, dying: all of them count; what was refused has left no trace."""
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(1), max_jobs=2) as pool:
        first = await pool.launch("stay")
        visit = await stage.next("job")
        second = pool.submit("stay", timeout=DEADLINE)
        for moment in (lambda: None, first.cancel, lambda: os.kill(visit.pid, 9)):
            with suppress(ProcessLookupError):  # it may have ended as it was told to
                moment()
            with pytest.raises(NoCapacity, match=r"max_jobs \(2\) is reached"):
                pool.submit()
        await first.wait()
        third = pool.submit("stay", timeout=DEADLINE)
        with pytest.raises(NoCapacity):
            pool.submit()
        for _handle in (second, third):
            (await stage.next("job")).order("leave")
        assert [(await handle.wait()).reason for handle in (second, third)] == ["completed"] * 2
        await assert_recovered(pool, 1)
        assert stage.starts() == {handle.id: 1 for handle in (first, second, third)}
