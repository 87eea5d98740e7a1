"""Ended processes, jobs and results are freed by their last reference. None waits for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support import eventually, idle_pids, zygote_pid

from greenroom import Accept, AppLoadError, GreenroomError, ProcessPool

MakeApp = Callable[[str], str]

APP = """
@app.entrypoint
async def entrypoint(ctx):
    kind = ctx.job.metadata
    if kind == "result":
        return "x" * (1 << 20)
    if kind == "raise":
        raise ValueError("no")
    if kind == "exit":
        os._exit(3)
    if kind == "block":
        time.sleep(1000)
    if kind == "nonsense":
        for name in os.listdir("/proc/self/fd"):
            try:
                os.write(int(name), b"nonsense" * 10)
            except OSError:
                pass
    await asyncio.sleep(1000)
"""


@contextmanager
def cycles_kept() -> Iterator[None]:
    """Collect nothing within. Afterwards ``gc.garbage`` holds the objects that a collection would have freed."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
    finally:
        gc.set_debug(0)
        gc.enable()


def ours_in_garbage() -> Counter[str]:
    """Count Greenroom's objects, futures and tasks that only a collection could free."""
    found = Counter[str]()
    for thing in gc.garbage:
        kind = type(thing)
        if kind.__module__.startswith("greenroom.") or isinstance(thing, GreenroomError):
            found[f"{kind.__module__}.{kind.__qualname__}"] += 1
        elif isinstance(thing, (asyncio.Future, asyncio.Task)):
            found[repr(thing)[:200]] += 1
    gc.garbage.clear()
    return found


async def let_go(pool: ProcessPool, kind: str) -> None:
    """Run one job to its end. No variable of the caller keeps the handle."""
    handle = await pool.launch(kind)
    if kind == "cancel":
        handle.cancel("enough")
    if kind == "kill":
        assert handle.pid is not None
        os.kill(handle.pid, signal.SIGKILL)
    await handle.wait()


@pytest.mark.parametrize("kind", ["result", "raise", "exit", "cancel", "kill", "nonsense", "block"])
async def test_a_job_that_has_ended_leaves_no_cycle(make_app: MakeApp, kind: str) -> None:
    options = {"stall_timeout": 3.0} if kind == "block" else {}
    async with ProcessPool(make_app(APP), num_idle_processes=2, **options) as pool:
        await let_go(pool, kind)  # the first one may import modules, whose making leaves cycles
        await eventually(lambda: pool.stats().idle == 2)
        with cycles_kept():
            for _ in range(2):
                await let_go(pool, kind)
            await eventually(lambda: pool.stats().idle == 2)
            await asyncio.sleep(0)
        assert ours_in_garbage() == Counter()


@pytest.mark.parametrize("verdict", ["True", "False"])
async def test_a_job_that_the_app_was_asked_about_leaves_no_cycle(make_app: MakeApp, verdict: str) -> None:
    hook = f"""
@app.request
def request(request):
    return {verdict}
"""
    async with ProcessPool(make_app(APP + hook), num_idle_processes=1, idle_ttl=0.2) as pool:

        async def ask(pool: ProcessPool) -> None:
            reservation = await pool.reserve("result", timeout=10)
            if isinstance(await reservation.ask(), Accept):
                await reservation.launch().wait()

        await ask(pool)
        await eventually(lambda: pool.stats().idle == 1)
        with cycles_kept():
            await ask(pool)
            await eventually(lambda: pool.stats().idle == 1)
        assert ours_in_garbage() == Counter()


async def test_jobs_that_never_start_leave_no_cycle(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(APP), num_idle_processes=1, max_jobs=1) as pool:

        async def refused(pool: ProcessPool) -> None:
            with suppress(GreenroomError):
                await pool.launch("stay")
            with suppress(GreenroomError):
                await pool.reserve("stay")

        async def released(pool: ProcessPool) -> None:
            (await pool.reserve("stay", timeout=10)).release()
            waiting = pool.submit("stay", timeout=10)
            waiting.cancel("withdrawn")
            with suppress(GreenroomError):
                await waiting.started()
            await waiting.wait()

        await released(pool)
        with cycles_kept():
            await released(pool)
            handle = await pool.launch("stay")
            await refused(pool)
            handle.cancel("enough")
            await handle.wait()
            del handle
            await eventually(lambda: pool.stats().idle == 1)
        assert ours_in_garbage() == Counter()


async def test_processes_that_end_idle_leave_no_cycle(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(APP), num_idle_processes=2) as pool:

        async def lose_all(pool: ProcessPool) -> None:
            reports = len(list(pool.recent_reports))
            for pid in idle_pids(pool):
                os.kill(pid, signal.SIGKILL)
            await eventually(lambda: len(list(pool.recent_reports)) >= reports + 2)
            await eventually(lambda: pool.stats().idle == 2)

        await lose_all(pool)
        with cycles_kept():
            await lose_all(pool)
        assert ours_in_garbage() == Counter()


async def test_a_process_that_does_not_become_warm_leaves_no_cycle(make_app: MakeApp, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    prewarm = f"""
@app.prewarm
def prewarm(proc):
    if os.path.exists({str(flag)!r}):
        raise ValueError("no")
"""
    async with ProcessPool(make_app(APP + prewarm), num_idle_processes=1) as pool:
        with cycles_kept():
            flag.touch()
            os.kill(idle_pids(pool)[0], signal.SIGKILL)
            await eventually(lambda: any(report.reason == "prewarm_failed" for report in pool.recent_reports))
            flag.unlink()
            await eventually(lambda: pool.stats().idle == 1)
        assert ours_in_garbage() == Counter()


async def test_a_lost_zygote_leaves_no_cycle(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(APP), num_idle_processes=1, idle_ttl=0.2) as pool:

        async def lose(pool: ProcessPool) -> None:
            handle = await pool.launch("stay")
            zygote = zygote_pid(pool)
            os.kill(zygote, signal.SIGKILL)
            await eventually(lambda: pool.stats().zygote_pid not in (None, zygote))
            handle.cancel("enough")
            await handle.wait()
            await eventually(lambda: pool.stats().idle == len(pool.processes) == 1)

        await lose(pool)
        with cycles_kept():
            await lose(pool)
        assert ours_in_garbage() == Counter()


async def test_a_reload_leaves_no_cycle(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(APP), num_idle_processes=1) as pool:
        await pool.reload()
        await eventually(lambda: len(pool.processes) == 1)
        with cycles_kept():
            await pool.reload()
            await eventually(lambda: len(pool.processes) == 1)
        assert ours_in_garbage() == Counter()


async def test_a_reload_that_fails_leaves_no_cycle(make_app: MakeApp, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    app = make_app(APP + f"\nif os.path.exists({str(flag)!r}): raise ValueError('no')\n")
    async with ProcessPool(app, num_idle_processes=1) as pool:
        flag.touch()

        async def fail(pool: ProcessPool) -> None:
            with suppress(AppLoadError):
                await pool.reload()
            await eventually(lambda: len(pool._shell.core.pool.launchers) == 1)

        await fail(pool)
        with cycles_kept():
            await fail(pool)
        assert ours_in_garbage() == Counter()
