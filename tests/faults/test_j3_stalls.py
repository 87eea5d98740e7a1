"""J3: the event loop of a job stands still. It is ended with its stack, unless it only waits for a CPU."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from scarce_cpu import HOG, confine, has_run_dry, monopoly, starved, without_stacks
from stage import Stage, Visit, assert_recovered
from support import eventually, kill

from greenroom import JobHandle, ProcessPool
from greenroom.system import proc, stackdump

MakeApp = Callable[[str], str]
alone = pytest.mark.alone  # it takes a whole CPU from everybody else

APP = """
import re

def busy_in_python():
    while True:
        pass

def asleep():
    while True:
        time.sleep(1000)

def deadlocked():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

def gil_held_asleep():
    while True:
        ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the GIL

def gil_held_busy():
    re.match(r"(a|aa)+$", "a" * 100 + "b")  # takes for ever

def in_a_thread():
    gil_held_asleep()

def stopped():
    while True:
        os.kill(os.getpid(), signal.SIGSTOP)

async def below_other_awaits(fn):
    fn()

@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    kind = ctx.job.metadata
    if kind == "stay":
        return await on_stage("job")
    if kind == "in_a_thread":
        return await asyncio.to_thread(in_a_thread)
    if kind == "in_a_callback":
        ctx.add_shutdown_callback(asleep)
        return "a result"
    await below_other_awaits(globals()[kind])
"""


@pytest.mark.parametrize(
    ("kind", "where", "why"),
    [
        ("busy_in_python", "busy_in_python", "loop blocked"),
        ("asleep", "asleep", "loop blocked"),
        ("deadlocked", "deadlocked", "loop blocked"),
        ("in_a_callback", "asleep", "loop blocked"),
        ("gil_held_asleep", "gil_held_asleep", "GIL held"),
        ("gil_held_busy", "gil_held_busy", "GIL held"),
        ("in_a_thread", "in_a_thread", "GIL held"),
        ("stopped", "stopped", "stopped"),
    ],
)
async def test_J3_a_stalled_job_is_ended_with_its_stack(make_app: MakeApp, kind: str, where: str, why: str) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1, stall_timeout=0.6) as pool:
        handle = await pool.launch(kind)
        report = await handle.wait()
        assert (report.outcome, report.reason, report.signal) == ("killed", "stalled", signal.SIGKILL)
        assert f"({why})" in report.detail
        assert "stall_timeout is 0.6 s" in report.detail
        assert f" in {where}\n" in (report.stack_dump or "")
        assert stage.starts() == {handle.id: 1}
        assert report.result == ("a result" if kind == "in_a_callback" else None)
        await assert_recovered(pool, 1)


async def test_J3_stopped_from_outside(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1, stall_timeout=0.6) as pool:
        handle = await pool.launch("stay")
        kill((await stage.next("job")).pid, signal.SIGSTOP)
        report = await handle.wait()
        assert (report.outcome, report.reason) == ("killed", "stalled")
        assert "(stopped)" in report.detail
        assert " in run_forever\n" in (report.stack_dump or "")  # where a loop is that is not blocked
        await assert_recovered(pool, 1)


async def test_J3_a_job_without_handlers_is_stalled_too(make_app: MakeApp) -> None:
    """The signal that asks for its stack ends it. That is our doing, and no crash."""
    blocks = """
@app.entrypoint
async def entrypoint(ctx):
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    time.sleep(1000)
"""
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(blocks), num_idle_processes=1, stall_timeout=0.5) as pool,
    ):
        report = await (await pool.launch()).wait()
        assert (report.outcome, report.reason, report.stack_dump) == ("killed", "stalled", None)
        assert report.signal == stackdump.SIGNAL


async def test_J3_a_job_that_is_stopped_and_continued_in_time_goes_on(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1, stall_timeout=30) as pool:
        handle = await pool.launch("stay")
        visit = await stage.next("job")
        kill(visit.pid, signal.SIGSTOP)
        await eventually(lambda: proc.stat(visit.pid).state == "T")
        kill(visit.pid, signal.SIGCONT)
        visit.order("leave")
        report = await handle.wait()
        assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", "leave")
        await assert_recovered(pool, 1)


async def test_J3_a_stalled_job_keeps_no_other_from_its_work(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(APP), num_idle_processes=2, max_idle_processes=2, stall_timeout=0.6) as pool,
    ):
        stalled = [await pool.launch(kind) for kind in ("gil_held_asleep", "deadlocked", "stopped")]
        healthy = await pool.launch("stay")
        visit = await stage.next("job")
        assert [(await handle.wait()).reason for handle in stalled] == ["stalled"] * 3
        visit.order("leave")
        assert (await healthy.wait()).reason == "completed"
        await assert_recovered(pool, 2)


# --- starved -------------------------------------------------------------------------------------


@alone
async def test_J3_a_job_that_is_starved_of_cpu_is_left_alone(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1, stall_timeout=0.4) as pool:
        handle = await pool.launch("stay")
        visit = await stage.next("job")
        cpu = max(os.sched_getaffinity(0))
        with monopoly(cpu):
            confine(visit.pid, {cpu})
            await eventually(lambda: caplog.text.count("is starved of CPU") >= 2 or handle.report, "starvation, twice")
        assert handle.report is None
        visit.order("leave")
        report = await handle.wait()
        assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", "leave")
        await assert_recovered(pool, 1)


BUSY = f"""{HOG}
@app.entrypoint
async def entrypoint(ctx):
    block_on_stage("job")
    busy()

app.preload(start_hog)
"""


@asynccontextmanager
async def a_starved_job(make_app: MakeApp) -> AsyncIterator[tuple[ProcessPool, JobHandle, Visit]]:
    """A job that blocks its loop, does not end when it is told to, and has no CPU for its stacks then."""
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(BUSY), num_idle_processes=1, shutdown_timeout=0.1) as pool,
    ):
        hog = int(stage.noted("hog")[0][0])
        await eventually(lambda: proc.stat(hog).state == "T")
        handle = await pool.launch()
        visit = await stage.next("job")
        with starved(visit.pid, hog):
            await visit.ordered("go on")
            await has_run_dry(visit.pid)
            handle.cancel()
            yield pool, handle, visit


@alone
async def test_J3_a_starved_job_is_ended_with_its_stack(make_app: MakeApp) -> None:
    async with a_starved_job(make_app) as (_, handle, visit):
        await without_stacks(visit.pid, 2.0, lambda: handle.report)
    report = await handle.wait()
    assert (report.outcome, report.reason) == ("killed", "cancelled")
    assert " in entrypoint\n" in (report.stack_dump or "")


@alone
async def test_J3_who_closes_at_once_waits_for_no_stack(make_app: MakeApp) -> None:
    async with a_starved_job(make_app) as (pool, handle, visit):
        await without_stacks(visit.pid, 0.0, lambda: handle.report)
        closing = asyncio.create_task(pool.aclose(kill=True))
        await asyncio.sleep(0)
        assert is_dying(visit.pid)
    await closing


def is_dying(pid: int) -> bool:
    try:
        return not proc.runs_on(pid)
    except OSError:
        return True
