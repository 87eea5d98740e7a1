"""J4: a process takes too much memory. It is stopped in time; and who stopped it, and for what, is told apart."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from stage import Stage, assert_recovered
from support import DEADLINE, eventually, is_gone, kill, zygote_pid

from greenroom import ExitReport, ProcessPool
from greenroom.pool.events import MemorySampled, ProcessChanged
from greenroom.system import proc

MakeApp = Callable[[str], str]

APP = """
BLOCK = 4

def allocate(megabytes, per_second):
    begin, held = time.monotonic(), []
    while BLOCK * len(held) < megabytes:
        held.append(b"x" * (BLOCK << 20))  # written to, so really there
        ahead = BLOCK * len(held) / per_second - (time.monotonic() - begin)
        if ahead > 0:
            time.sleep(ahead)
    return held

def once(name):
    try:
        os.close(os.open(f"{STAGE}.{name}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

@app.prewarm
def prewarm(proc):
    if PREWARM and once("prewarm"):
        allocate(**PREWARM)
        threading.Event().wait()

@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    if ctx.job.metadata == "stay":
        await on_stage("job")
    if "cgroup" in ctx.job.metadata:
        with open(ctx.job.metadata.pop("cgroup"), "w") as file:
            file.write(str(os.getpid()))
    held = await asyncio.to_thread(allocate, **ctx.job.metadata)
    await on_stage("allocated")
"""

alone = pytest.mark.alone  # how far a process gets beyond its limit depends on how soon the supervisor has a CPU

GIGABYTE_PER_SECOND = {"megabytes": 1500, "per_second": 1024}


IMAGE = """
@app.preload
def preload():
    app.image = b"x" * (300 << 20)

@app.entrypoint
async def entrypoint(ctx):
    assert await on_stage("job", ctx.job.id) == "grow"
    grown = b"x" * (300 << 20)
    await on_stage("grown", ctx.job.id)
"""
"""An image of 300 MiB, of which jobs touch nothing."""


def memory_app(stage: Stage, prewarm: dict[str, int] | None = None) -> str:
    return stage.app(f"PREWARM = {prewarm}\n{APP}")


def assert_over_the_limit(report: ExitReport, limit: int) -> None:
    assert (report.outcome, report.reason, report.signal) == ("killed", "memory_limit", signal.SIGKILL)
    assert f"memory_limit_mb is {limit}" in report.detail
    assert report.peak_memory_mb is not None
    assert limit * 0.9 < report.peak_memory_mb < limit * 2


@alone
async def test_J4_fast_allocation_in_the_job_is_stopped_before_twice_the_limit(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(memory_app(stage), num_idle_processes=1, memory_limit_mb=400) as pool,
    ):
        handle = await pool.launch(GIGABYTE_PER_SECOND)
        assert_over_the_limit(await handle.wait(), 400)
        assert stage.starts() == {handle.id: 1}
        await assert_recovered(pool, 1)


@alone
async def test_J4_fast_allocation_in_prewarm_is_stopped_before_twice_the_limit(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        app = memory_app(stage, GIGABYTE_PER_SECOND)
        async with ProcessPool(app, num_idle_processes=2, memory_limit_mb=400, prewarm_timeout=40) as pool:
            await assert_recovered(pool, 2)
            (report,) = pool.recent_reports
            assert_over_the_limit(report, 400)
            assert report.job_id is None


async def test_J4_a_slow_leak_is_warned_of_once_and_stopped(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    async with Stage(make_app) as stage:
        limits = {"memory_warn_mb": 60, "memory_limit_mb": 160}
        async with ProcessPool(memory_app(stage), num_idle_processes=1, **limits) as pool:
            handle = await pool.launch({"megabytes": 400, "per_second": 80})
            assert_over_the_limit(await handle.wait(), 160)
            warnings = [record.getMessage() for record in caplog.records if " uses " in record.getMessage()]
            assert len(warnings) == 1
            assert f"(job {handle.id}) uses " in warnings[0]
            await assert_recovered(pool, 1)


async def test_J4_a_process_that_stays_above_the_warning_is_warned_of_once_and_left_alone(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    async with Stage(make_app) as stage:
        limits = {"memory_warn_mb": 60, "memory_limit_mb": 1000}
        async with ProcessPool(memory_app(stage), num_idle_processes=1, **limits) as pool:
            handle = await pool.launch({"megabytes": 120, "per_second": 100})
            visit = await stage.next("allocated")
            await eventually(lambda: " uses " in caplog.text, "warning")
            visit.order("leave")
            report = await handle.wait()
            assert (report.outcome, report.reason) == ("succeeded", "completed")
            assert caplog.text.count(" uses ") == 1
            await assert_recovered(pool, 1)


async def test_J4_what_is_shared_with_the_zygote_counts_by_its_share(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        model = "model = b'x' * (200 << 20)\n"
        app = stage.app(f"PREWARM = None\n{model}{APP}")
        async with ProcessPool(app, num_idle_processes=3, memory_limit_mb=150) as pool:
            handle = await pool.launch({"megabytes": 40, "per_second": 100})
            (await stage.next("allocated")).order("leave")
            report = await handle.wait()
            assert (report.outcome, report.reason) == ("succeeded", "completed")
            assert (report.peak_memory_mb or 0) > 200
            await assert_recovered(pool, 3)


# --- who killed it -------------------------------------------------------------------------------

CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup (of either version) with 64 MiB; yields the file that a process enters it by."""
    is_v2 = (CGROUPS / "cgroup.controllers").exists()
    parent = CGROUPS if is_v2 else CGROUPS / "memory"
    cgroup = parent / f"greenroom-test-{os.getpid()}"
    try:
        if is_v2:
            (parent / "cgroup.subtree_control").write_text("+memory")
        cgroup.mkdir()
    except OSError as error:
        pytest.skip(f"needs a memory cgroup to be made: {error}")
    try:
        (cgroup / ("memory.max" if is_v2 else "memory.limit_in_bytes")).write_text(str(64 << 20))
        with suppress(OSError):  # no swap, or no account of it
            limit, value = ("memory.swap.max", 0) if is_v2 else ("memory.memsw.limit_in_bytes", 64 << 20)
            (cgroup / limit).write_text(str(value))
        yield cgroup / "cgroup.procs"
    except OSError as error:
        pytest.skip(f"needs a memory cgroup with a limit: {error}")
    finally:
        cgroup.rmdir()


def too_much_for(cgroup: Path) -> dict[str, object]:
    return {"megabytes": 300, "per_second": 1024, "cgroup": str(cgroup)}


@alone
async def test_J4_the_kernel_and_the_limit_and_somebody_else_are_told_apart(
    make_app: MakeApp, small_cgroup: Path
) -> None:
    async with Stage(make_app) as stage:
        limits = {"memory_limit_mb": 400, "memory_warn_mb": None}
        async with ProcessPool(memory_app(stage), num_idle_processes=2, max_idle_processes=2, **limits) as pool:
            by_limit = await pool.launch(GIGABYTE_PER_SECOND)
            by_kernel = await pool.launch(too_much_for(small_cgroup))
            by_others = await pool.launch("stay")
            visit = await stage.next("job")
            assert_over_the_limit(await by_limit.wait(), 400)
            report = await by_kernel.wait()
            assert (report.outcome, report.reason, report.signal) == ("killed", "oom_killed", signal.SIGKILL)
            assert "because memory ran out" in report.detail
            kill(visit.pid)  # right after an OOM kill, but none of those
            report = await by_others.wait()
            assert (report.outcome, report.reason, report.signal) == ("killed", "signaled", signal.SIGKILL)
            assert set(stage.starts().values()) == {1}
            await assert_recovered(pool, 2)


async def test_J4_every_victim_of_the_kernel_has_its_report(make_app: MakeApp, small_cgroup: Path) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(memory_app(stage), num_idle_processes=3, max_idle_processes=3) as pool,
    ):
        handles = [await pool.launch(too_much_for(small_cgroup)) for _ in range(3)]
        reports = [await handle.wait() for handle in handles]
        assert [report.reason for report in reports] == ["oom_killed"] * 3
        await assert_recovered(pool, 3)


GREEDY_END = """
@app.entrypoint
async def entrypoint(ctx):
    ctx.add_shutdown_callback(grow)
    await on_stage("job")

async def grow():
    held = []
    while True:
        held.append(b"x" * (4 << 20))
        await asyncio.sleep(0.002)
"""


@alone
async def test_J4_the_limit_holds_while_a_job_that_was_cancelled_ends(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        options = {"num_idle_processes": 1, "memory_limit_mb": 150, "shutdown_timeout": 50}
        async with ProcessPool(stage.app(GREEDY_END), **options) as pool:
            handle = await pool.launch()
            await stage.next("job")
            handle.cancel("enough")
            report = await handle.wait()
            assert (report.outcome, report.reason, report.signal) == ("killed", "cancelled", signal.SIGKILL)
            assert report.peak_memory_mb is not None
            assert report.peak_memory_mb < 300


@pytest.mark.parametrize("loop", ["free", "held up"])
async def test_J4_a_job_is_not_charged_with_its_image_when_it_is_the_last_to_have_it(
    make_app: MakeApp, loop: str
) -> None:
    """Its zygote and all its neighbours are gone: every page that they shared is its alone.

    ``held up``: the supervisor first looks at the process when it is no longer young.
    """
    options = {"num_idle_processes": 0, "memory_limit_mb": 250, "launch_timeout": DEADLINE}
    async with Stage(make_app) as stage, ProcessPool(stage.app(IMAGE), **options) as pool:
        if loop == "held up":
            pool.subscribe(lambda event: time.sleep(0.5) if isinstance(event, ProcessChanged) else None)
        looks = Counter[str]()
        pool.subscribe(lambda event: looks.update([event.process_id] if isinstance(event, MemorySampled) else []))
        handle = await pool.launch()
        visit = await stage.next("job")
        lost = zygote_pid(pool)
        kill(lost)
        await eventually(lambda: is_gone(lost), "end of the zygote")
        (process,) = [each for each in pool.processes if each.job_id == handle.id]
        await eventually(lambda: proc.pss_mb(visit.pid) > 290, "all of the image, for the job alone")
        seen = looks[process.id]
        await eventually(lambda: looks[process.id] >= seen + 4, "four looks at its memory, which take 2 s")
        assert handle.report is None
        visit.order("grow")  # that is its own
        report = await handle.wait()
        assert (report.outcome, report.reason) == ("killed", "memory_limit")
