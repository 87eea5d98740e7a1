"""S12: a debugger holds the zygote, a process in prewarm, or a session that is to end. It holds a dead process's exit
status, too, for as long as it likes; SIGKILL does not change that. Nothing else notices."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from stage import Stage, assert_recovered, steady
from support import DEADLINE, eventually, idle_pids, is_gone, zygote_pid

from greenroom import ProcessPool

MakeApp = Callable[[str], str]

APP = """
@app.entrypoint
async def entrypoint(ctx):
    return await on_stage("job", ctx.job.id)
"""

DEBUGGER = """
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
held = []
for task in map(int, os.listdir(f"/proc/{pid}/task")):
    if libc.ptrace(16, task, 0, 0) == 0:  # PTRACE_ATTACH
        os.waitpid(task, 0x40000000)  # __WALL
        held.append(task)
print(len(held), flush=True)
sys.stdin.read()
"""


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Attach a debugger that waits at its prompt, until the end of the block."""
    command = [sys.executable, "-c", DEBUGGER, str(pid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as debugger:
        assert debugger.stdout is not None
        if debugger.stdout.readline().strip() == "0":
            pytest.skip("ptrace is not allowed here")
        try:
            yield
        finally:
            assert debugger.stdin is not None
            debugger.stdin.close()  # it ends, and with it its hold


async def test_S12_a_held_zygote_is_replaced(make_app: MakeApp) -> None:
    """Without its answers nothing can be forked. Its exit status is not waited for."""
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), **steady(1)) as pool:
        lost = zygote_pid(pool)
        with held(lost):
            handle = await pool.launch()  # takes the idle process: the next one is asked for
            visit = await stage.next("job")
            await eventually(lambda: pool.stats().zygote_pid not in (None, lost), "another zygote")
            await eventually(lambda: pool.stats().idle == 1, "a process of it")
            visit.order("done")
            assert (await handle.wait()).result == "done"
            assert pool.stats().zygote_restarts == 1


@pytest.mark.more
async def test_S12_a_process_held_in_prewarm_costs_no_zygote(make_app: MakeApp) -> None:
    prewarm = (
        APP
        + """
@app.prewarm
async def prewarm(proc):
    if not os.path.exists(STAGE + ".again"):
        await on_stage("prewarm")
"""
    )
    options = {**steady(1), "prewarm_timeout": 5}
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(prewarm), **options)
        start = asyncio.create_task(pool.start())
        try:
            visit = await stage.next("prewarm")
            zygote = zygote_pid(pool)
            (stage.directory / "stage.again").touch()  # those that take its place become warm at once
            with held(visit.pid):
                await eventually(lambda: list(pool.recent_reports), "the report of the held process")
                (report,) = pool.recent_reports
                assert report.reason == "prewarm_timeout"
                await start
                assert zygote_pid(pool) == zygote
                assert pool.stats().zygote_restarts == 0
            await assert_recovered(pool, 1)
        finally:
            await pool.aclose()
            await asyncio.gather(start, return_exceptions=True)


@pytest.mark.more
async def test_S12_a_held_session_is_reported_and_the_pool_closes(make_app: MakeApp) -> None:
    options = {**steady(1), "shutdown_timeout": 0.5, "cleanup_timeout": 0.5, "stall_timeout": None}
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(APP), **options)
        await pool.start()
        handle = await pool.launch()
        visit = await stage.next("job")
        with held(visit.pid):
            handle.cancel()
            async with asyncio.timeout(DEADLINE):
                report = await handle.wait()
                assert report.reason == "cancelled"
                assert "debugger" in report.detail or "still exists" in report.detail
                assert visit.pid not in idle_pids(pool)
                await pool.aclose()


@pytest.mark.more
async def test_S12_a_session_that_a_debugger_lets_go_after_its_report_breaks_nothing(make_app: MakeApp) -> None:
    """Its zygote reports how it ended, and nothing that was opened for it is there any more."""
    options = {**steady(1), "shutdown_timeout": 0.5, "cleanup_timeout": 0.5, "stall_timeout": None}
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), **options) as pool:
        zygote = zygote_pid(pool)
        handle = await pool.launch()
        visit = await stage.next("job")
        with held(visit.pid):
            handle.cancel()
            async with asyncio.timeout(DEADLINE):
                await handle.wait()
        await eventually(lambda: is_gone(visit.pid), "the end of the session")
        await assert_recovered(pool, 1)
        later = await pool.launch()
        (await stage.next("job")).order("done")
        assert (await later.wait()).result == "done"  # what its zygote has said of the other is read by now
        assert zygote_pid(pool) == zygote
    assert faults == []
