"""J1: the native code of a process crashes. Its report has the Python stacks of that moment."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from stage import Stage, assert_recovered
from support import eventually, kill, zygote_pid

from greenroom import AppLoadError, ExitReport, ProcessPool
from greenroom.system.crash_stacks import LONGEST

MakeApp = Callable[[str], str]

APP = """
import faulthandler
import multiprocessing

def crash():
    ctypes.string_at(0)

def crash_in_a_copy():
    copy = multiprocessing.get_context("fork").Process(target=crash)
    copy.start()
    copy.join()
    return copy.exitcode

def kill_by_segv():
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)

class Jobs:
    async def segv(ctx):
        crash()

    async def segv_in_thread(ctx):
        await asyncio.to_thread(crash)

    async def abort(ctx):
        os.abort()

    async def fatal(ctx):
        print("Fatal Python error: none yet", file=sys.stderr)
        ctypes.pythonapi.Py_FatalError(b"out of luck")

    async def own_choice(ctx):
        faulthandler.enable()
        crash()

    async def no_choice(ctx):
        kill_by_segv()

    async def deep(ctx):
        def fall(depth):
            crash() if depth == 0 else fall(depth - 1)
        def wait(depth):
            threading.Event().wait() if depth == 0 else wait(depth - 1)
        for _ in range(70):
            threading.Thread(target=wait, args=(20,), daemon=True).start()
        fall(400)

    async def only_the_copy(ctx):
        return crash_in_a_copy()

    async def after_the_copy(ctx):
        crash_in_a_copy()
        os.abort()

    async def raises_after_the_copy(ctx):
        crash_in_a_copy()
        os.kill(os.getpid(), signal.SIGKILL)

    async def stay(ctx):
        await on_stage("job", ctx.job.id)
        crash()

@app.entrypoint
async def entrypoint(ctx):
    return await vars(Jobs)[ctx.job.metadata](ctx)
"""

CRASHES = {
    "segv": (signal.SIGSEGV, "Segmentation fault", ("in crash\n", "in segv\n", "in entrypoint\n")),
    "segv_in_thread": (signal.SIGSEGV, "Segmentation fault", ("in crash\n", "in _worker\n", "in run_forever\n")),
    "abort": (signal.SIGABRT, "Aborted", ("in abort\n", "in entrypoint\n")),
    "fatal": (signal.SIGABRT, "out of luck", ("in fatal\n", "in entrypoint\n")),
    "own_choice": (signal.SIGSEGV, "Segmentation fault", ("in crash\n", "in own_choice\n")),
    "after_the_copy": (signal.SIGABRT, "Aborted", ("in after_the_copy\n",)),
}


def stacks_of(report: ExitReport, number: signal.Signals) -> str:
    assert (report.outcome, report.reason, report.signal) == ("killed", "signaled", number)
    assert report.stack_dump is not None
    return report.stack_dump


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_J1_a_crash_has_its_stacks_in_the_report(make_app: MakeApp, start_method: str) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(APP), num_idle_processes=2, max_idle_processes=2, start_method=start_method) as pool,
    ):
        kinds = {kind: pool.submit(kind, timeout=50) for kind in CRASHES}
        for kind, handle in kinds.items():
            number, words, frames = CRASHES[kind]
            stacks = stacks_of(await handle.wait(), number)
            assert stacks.startswith(f"Fatal Python error: {words}\n"), kind
            assert [frame for frame in frames if frame not in stacks] == [], (kind, stacks)
            assert "in crash_in_a_copy\n" not in stacks, kind
        await assert_recovered(pool, 2)


async def test_J1_a_crash_without_stacks_is_reported_without(make_app: MakeApp) -> None:
    """The app has switched faulthandler off; and the crash of a copy is not the crash of the process."""
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        report = await (await pool.launch("no_choice")).wait()
        assert (report.reason, report.signal, report.stack_dump) == ("signaled", signal.SIGSEGV, None)
        report = await (await pool.launch("only_the_copy")).wait()
        assert (report.reason, report.result, report.stack_dump) == ("completed", -signal.SIGSEGV, None)
        report = await (await pool.launch("raises_after_the_copy")).wait()
        assert (report.reason, report.signal, report.stack_dump) == ("signaled", signal.SIGKILL, None)
        await assert_recovered(pool, 1)


async def test_J1_the_stacks_of_a_crash_are_bounded(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        stacks = stacks_of(await (await pool.launch("deep")).wait(), signal.SIGSEGV)
        assert "in crash\n" in stacks, "the thread that crashed comes first, whatever is cut"
        assert " in wait\n" in stacks
        assert len(stacks) == LONGEST


async def test_J1_a_crash_after_the_loss_of_the_zygote_has_its_stacks(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        handle = await pool.launch("stay")
        visit = await stage.next("job")
        lost = zygote_pid(pool)
        kill(lost)
        await eventually(lambda: pool.stats().zygote_pid not in (lost, None))
        visit.order("go on")
        assert "in stay\n" in stacks_of(await handle.wait(), signal.SIGSEGV)
        await assert_recovered(pool, 1)


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_J1_an_app_that_has_chosen_a_file_in_preload_keeps_it(
    make_app: MakeApp, tmp_path: Path, start_method: str
) -> None:
    source = """
@app.preload
def preload():
    import faulthandler
    global chosen
    chosen = open(CHOSEN, "a")
    faulthandler.enable(chosen)

@app.entrypoint
async def entrypoint(ctx):
    os.abort()
"""
    async with (
        Stage(make_app) as stage,
        ProcessPool(
            stage.app(f"CHOSEN = {str(tmp_path / 'chosen')!r}\n{source}"),
            num_idle_processes=1,
            start_method=start_method,
        ) as pool,
    ):
        report = await (await pool.launch(timeout=50)).wait()
        assert (report.reason, report.signal, report.stack_dump) == ("signaled", signal.SIGABRT, None)
    assert "Fatal Python error: Aborted" in (tmp_path / "chosen").read_text()


async def test_J1_a_crash_in_prewarm_has_its_stacks(make_app: MakeApp) -> None:
    source = """
@app.prewarm
def prewarm(proc):
    os.abort()

@app.entrypoint
async def entrypoint(ctx):
    return None
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(source), num_idle_processes=1) as pool:
        await eventually(lambda: [report for report in pool.recent_reports if report.reason == "signaled"])
        assert "in prewarm\n" in stacks_of(next(iter(pool.recent_reports)), signal.SIGABRT)


async def test_J1_a_crash_in_preload_has_its_stacks_in_the_log(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
@app.preload
def preload():
    os.abort()

@app.entrypoint
async def entrypoint(ctx):
    return None
"""
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(source), num_idle_processes=1)
        with pytest.raises(AppLoadError, match="signal 6"):
            await pool.start()
    messages = [record.getMessage() for record in caplog.records]
    assert "Fatal Python error: Aborted" in messages
    assert any(message.endswith("in preload") for message in messages)
