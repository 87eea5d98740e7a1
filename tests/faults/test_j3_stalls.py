"""J3: the event loop of a job stands still. It is ended with its stack, unless it only waits for a CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from stage import Stage, assert_recovered
from support import eventually, kill

from greenroom import ProcessPool
from greenroom.system import proc

MakeApp = Callable[[str], str]

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


@contextmanager
def monopoly(cpu: int) -> Iterator[None]:
    """A CPU that is busy with a realtime process, which leaves a twentieth of it to all others."""
    if os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs to be root, and to have a second CPU")
    source = "import os, sys; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); print(flush=True)\n"
    command = ["taskset", "--cpu-list", str(cpu), sys.executable, "-c", f"{source}while True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            yield
        finally:
            process.kill()


def confine(pid: int, cpus: set[int]) -> None:
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), cpus)


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
