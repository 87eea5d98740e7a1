"""P3: close and drain while processes are asked for, forked, warming, idle, claimed, running, ending."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest
from stage import HELD_WHEN_CLAIMED, PLAIN, Stage, starting, steady
from support import DEADLINE, eventually, idle_pids, is_gone, kill, zygote_pid

from greenroom import ExitReport, LaunchError, NoCapacity, PoolClosed, ProcessPool

MakeApp = Callable[[str], str]
End = Callable[[ProcessPool], Awaitable[None]]

FORKED = PLAIN + "\nos.register_at_fork(after_in_child=lambda: block_on_stage('forked'))\n"
WARMING = PLAIN + "\n@app.prewarm\nasync def prewarm(proc):\n    await on_stage('warming')\n"
BLOCKED = PLAIN + "\n@app.prewarm\ndef prewarm(proc):\n    block_on_stage('warming')\n"


async def close(pool: ProcessPool) -> None:
    await pool.aclose()


async def close_twice_at_once(pool: ProcessPool) -> None:
    await asyncio.gather(pool.aclose(), pool.aclose())


async def drain_at_once(pool: ProcessPool) -> None:
    await pool.drain(0.01)


async def drain_and_close_at_once(pool: ProcessPool) -> None:
    await asyncio.gather(pool.drain(50), pool.aclose())


ENDS = pytest.mark.parametrize("end", [close, close_twice_at_once, drain_at_once, drain_and_close_at_once])


async def bounded(end: End, pool: ProcessPool) -> tuple[ExitReport, ...]:
    """End the pool; returns all the reports of its processes."""
    async with asyncio.timeout(DEADLINE):
        await end(pool)
    with_job = {report.process_id for report in pool.recent_reports}
    assert len(with_job) == len(list(pool.recent_reports))  # no process was reported, or released, twice
    return tuple(pool.recent_reports)


@ENDS
@pytest.mark.parametrize(("phase", "source"), [("forked", FORKED), ("warming", WARMING), ("warming", BLOCKED)])
async def test_P3_while_processes_are_forked_or_warming_and_jobs_wait(
    make_app: MakeApp, end: End, phase: str, source: str
) -> None:
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(source), **steady(2), max_concurrent_prewarms=3, prewarm_timeout=50)
        async with starting(pool):
            visits = [await stage.next(phase) for _ in range(2)]
            waiting = pool.submit(timeout=50)
            visits.append(await stage.next(phase))
            # A child may be there before the zygote's answer is.
            await eventually(lambda: {process.state for process in pool.processes} == {phase})
            reports = await bounded(end, pool)
            assert {(report.outcome, report.reason) for report in reports} == {("cancelled", "drained")}
            assert {report.pid for report in reports} == {visit.pid for visit in visits}
            with pytest.raises(LaunchError, match="never started"):
                await waiting.started()
            assert ((await waiting.wait()).outcome, (await waiting.wait()).reason) == ("cancelled", "drained")
            assert stage.starts() == {}
            assert all(is_gone(visit.pid) for visit in visits)


@ENDS
async def test_P3_while_a_fork_is_asked_for_and_the_zygote_does_not_answer(make_app: MakeApp, end: End) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(1)) as pool:
        running = await pool.launch("stay")  # taken, so that its replacement is asked for
        await eventually(lambda: pool.stats().idle == 1)
        kill(zygote_pid(pool), signal.SIGSTOP)
        second = pool.submit("stay")
        waiting = pool.submit("stay", timeout=50)
        assert "requested" in {process.state for process in pool.processes}
        await second.started()
        reports = await bounded(end, pool)
        assert {report.reason for report in reports} == {"drained"}
        for handle in (running, second):
            assert (await handle.wait()).outcome == "cancelled"
        assert (await waiting.wait()).reason == "drained"
        assert stage.starts() == {running.id: 1, second.id: 1}


@ENDS
async def test_P3_while_nothing_but_a_fork_is_asked_for_and_the_zygote_does_not_answer(
    make_app: MakeApp, end: End
) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(0)) as pool:
        kill(zygote_pid(pool), signal.SIGSTOP)
        waiting = pool.submit(timeout=50)
        assert [process.state for process in pool.processes] == ["requested"]
        (report,) = await bounded(end, pool)
        assert (report.outcome, report.reason, report.pid) == ("cancelled", "drained", None)
        assert (await waiting.wait()).reason == "drained"
        assert stage.starts() == {}


@ENDS
async def test_P3_while_the_zygote_is_stopped_and_nothing_else_is_left(make_app: MakeApp, end: End) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(0)) as pool:
        kill(zygote_pid(pool), signal.SIGSTOP)
        assert await bounded(end, pool) == ()


@ENDS
async def test_P3_while_processes_are_idle_one_of_them_stopped_one_dying(make_app: MakeApp, end: End) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(3)) as pool:
        dying, stopped, healthy = idle_pids(pool)
        kill(dying)
        kill(stopped, signal.SIGSTOP)
        reports = {report.pid: report for report in await bounded(end, pool)}
        replacements = reports.keys() - {dying, stopped, healthy}  # if a death was known before the end began
        assert len(replacements) <= 2
        assert {reports[pid].reason for pid in replacements} <= {"drained"}
        assert (reports[healthy].outcome, reports[healthy].reason) == ("cancelled", "drained")
        assert reports[healthy].exit_code == 0
        assert reports[dying].signal == signal.SIGKILL
        assert reports[dying].reason == "signaled"
        assert reports[stopped].reason in ("drained", "stalled")
        assert stage.starts() == {}


@ENDS
async def test_P3_while_a_process_is_claimed(make_app: MakeApp, end: End) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(HELD_WHEN_CLAIMED), **steady(2)) as pool:
        handle = pool.submit()
        visit = await stage.next("claimed")
        reports = await bounded(end, pool)
        with pytest.raises(LaunchError):
            await handle.started()
        report = await handle.wait()
        assert (report.outcome, report.reason, report.pid) == ("cancelled", "drained", visit.pid)
        assert report in reports
        assert stage.starts() == {}  # an acknowledgement that never came is no start
        assert stage.is_empty("claimed")  # nor was it tried anywhere else


@ENDS
async def test_P3_while_jobs_run(make_app: MakeApp, end: End) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(2)) as pool:
        handles = [await pool.launch("stay") for _ in range(3)]
        for _ in handles:
            await stage.next("job")
        await bounded(end, pool)
        reports = [await handle.wait() for handle in handles]
        assert {(report.outcome, report.reason) for report in reports} == {("cancelled", "drained")}
        assert stage.starts() == {handle.id: 1 for handle in handles}


async def test_P3_drain_counts_jobs_from_acceptance_and_waits_for_each(make_app: MakeApp) -> None:
    """Running, claimed and waiting: all were accepted, so all of them come to their own end."""
    async with Stage(make_app) as stage, ProcessPool(stage.app(HELD_WHEN_CLAIMED), **steady(2)) as pool:
        running = pool.submit("stay")
        (await stage.next("claimed")).order("go on")
        at_work = await stage.next("job")
        claimed = pool.submit()
        held = await stage.next("claimed")
        waiting = [pool.submit(timeout=50) for _ in range(4)]
        draining = asyncio.create_task(pool.drain(50))
        await eventually(lambda: pool.stats().not_ready_reason == "draining")
        with pytest.raises(NoCapacity) as refusal:
            pool.submit()
        assert refusal.value.reason == "draining"
        kill(held.pid)  # its job has been accepted: it is relaunched, draining or not
        for _ in (claimed, *waiting):
            (await stage.next("claimed")).order("go on")
        for handle in (claimed, *waiting):
            assert (await handle.wait()).reason == "completed"
        assert not draining.done()
        at_work.order("leave")
        await draining
        assert (await running.wait()).reason == "completed"
        assert pool.processes == ()
        assert pool.stats().idle_target == 0
        assert stage.starts() == {handle.id: 1 for handle in (running, claimed, *waiting)}


async def test_P3_closing_a_pool_that_is_still_loading_its_app(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(PLAIN + "\nblock_on_stage('import')\n"))
        async with starting(pool) as start:
            zygote = await stage.next("import")
            assert await bounded(close, pool) == ()
            assert is_gone(zygote.pid)
            with pytest.raises(PoolClosed, match="is closed"):
                await start
            with pytest.raises(PoolClosed):
                pool.submit()


async def test_P3_closing_in_the_middle_of_one_reload_with_another_one_waiting(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        source = (
            PLAIN + "\nblock_on_stage('import')\n@app.prewarm\nasync def prewarm(p):\n    await on_stage('warming')\n"
        )
        pool = ProcessPool(stage.app(source), **steady(1), prewarm_timeout=50)
        async with starting(pool) as start:
            (await stage.next("import")).order("go on")
            (await stage.next("warming")).order("go on")
            await start
            reloads = [asyncio.create_task(pool.reload()) for _ in range(2)]
            (await stage.next("import")).order("go on")
            proving = await stage.next("warming")
            reports = await bounded(close, pool)
            assert len(reports) == 2
            assert is_gone(proving.pid)
            async with asyncio.timeout(DEADLINE):
                results = await asyncio.gather(*reloads, return_exceptions=True)
            assert all(isinstance(result, Exception) for result in results), results
            assert stage.is_empty("import")  # the second was not begun


async def test_P3_the_caller_of_close_is_cancelled_and_it_goes_on(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(), **steady(2))
        await pool.start()
        pids = idle_pids(pool)
        closing = asyncio.create_task(pool.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert await bounded(close, pool)
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
