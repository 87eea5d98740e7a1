"""J1: the ways in which a job can end. Each has a report of its own, and each report is true."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from stage import Stage, assert_recovered
from support import kill

from greenroom import ExitReport, ProcessPool
from greenroom.code_place import place_in_stacks

MakeApp = Callable[[str], str]


class Ending(NamedTuple):
    outcome: str
    reason: str
    exit_code: int | None = None
    signal: int | None = None


COMPLETED = Ending("succeeded", "completed", 0)
RAISED = Ending("failed", "raised", 1)


def ending_of(report: ExitReport) -> Ending:
    return Ending(report.outcome, report.reason, report.exit_code, report.signal)


APP = """
class Unpicklable(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()

class NotReplayable(Exception):
    def __init__(self, one, *, two):
        super().__init__(f"{one} and {two}")

class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")
    __repr__ = __str__

class Leaving(Exception):
    def __str__(self):
        raise SystemExit(9)

def crash():
    ctypes.string_at(0)

class Jobs:
    async def returns(ctx):
        return "a result"

    async def raises(ctx):
        raise ValueError("a value that is wrong")

    async def unpicklable(ctx):
        raise Unpicklable

    async def not_replayable(ctx):
        raise NotReplayable(1, two=2)

    async def unspeakable(ctx):
        raise Unspeakable("never seen")

    async def leaving(ctx):
        raise Leaving

    async def group(ctx):
        raise ExceptionGroup("both failed", [ValueError("one"), Unspeakable()])

    async def local(ctx):
        class Local(Exception): ...
        raise Local("not UTF-8: \\udcff")

    async def huge(ctx):
        raise ValueError("x" * 10_000_000)

    async def cancels_itself(ctx):
        raise asyncio.CancelledError("by its own doing")

    async def cancels_all_others(ctx):
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        return "a result"

    async def cancels_everything(ctx):
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(0)

    async def sys_exit(ctx):
        sys.exit(3)

    async def sys_exit_0(ctx):
        sys.exit()

    async def sys_exit_with_text(ctx):
        sys.exit("no database")

    async def sys_exit_with_nonsense(ctx):
        sys.exit(Unspeakable())

    async def interrupted(ctx):
        raise KeyboardInterrupt

    async def exit_in_task(ctx):
        task = asyncio.create_task(Jobs.sys_exit(ctx))
        await asyncio.Event().wait()

    async def exit_in_awaited_task(ctx):
        await asyncio.create_task(Jobs.sys_exit(ctx))

    async def exit_in_callback(ctx):
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        await asyncio.Event().wait()

    async def exit_in_reader(ctx):
        read, write = os.pipe()
        os.close(write)
        asyncio.get_running_loop().add_reader(read, sys.exit, 3)
        await asyncio.Event().wait()

    async def exit_in_signal_handler(ctx):
        signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3))
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.Event().wait()

    async def exit_in_two_tasks(ctx):
        tasks = [asyncio.create_task(Jobs.sys_exit(ctx)) for _ in range(2)]
        await asyncio.Event().wait()

    async def exit_in_thread(ctx):
        await asyncio.to_thread(sys.exit, 3)

    async def os_exit(ctx):
        os._exit(4)

    async def os_exit_0(ctx):
        os._exit(0)

    async def segv(ctx):
        crash()

    async def abort(ctx):
        os.abort()

    async def stay(ctx):
        await on_stage("job", ctx.job.id)

@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    ctx.add_shutdown_callback(lambda: note("callback", ctx.job.id))
    return await vars(Jobs)[ctx.job.metadata](ctx)
"""

EXITED_3 = Ending("failed", "exited", 3)

# kind of end -> how it is reported, the error's type, what is said of it, whether shutdown callbacks ran
ENDS: dict[str, tuple[Ending, str | None, str, bool]] = {
    "returns": (COMPLETED, None, "the entrypoint returned", True),
    "raises": (RAISED, "ValueError", "a value that is wrong", True),
    "unpicklable": (RAISED, "Unpicklable", "holds a lock", True),
    "not_replayable": (RAISED, "NotReplayable", "1 and 2", True),
    "unspeakable": (RAISED, "Unspeakable", "its __str__ raised RuntimeError", True),
    "leaving": (RAISED, "Leaving", "its __str__ raised SystemExit", True),
    "group": (RAISED, "ExceptionGroup", "both failed", True),
    "local": (RAISED, "Jobs.local.<locals>.Local", "not UTF-8: \\udcff", True),
    "huge": (RAISED, "ValueError", "xxx", True),
    "cancels_itself": (RAISED, "CancelledError", "by its own doing", True),
    "cancels_all_others": (COMPLETED, None, "the entrypoint returned", True),
    "cancels_everything": (RAISED, "CancelledError", "CancelledError", True),
    "sys_exit": (EXITED_3, "SystemExit", "exited with code 3", True),
    "sys_exit_0": (Ending("succeeded", "exited", 0), "SystemExit", "exited with code 0", True),
    "sys_exit_with_text": (Ending("failed", "exited", 1), "SystemExit", "exited with code 1", True),
    "sys_exit_with_nonsense": (Ending("failed", "exited", 1), "SystemExit", "exited with code 1", True),
    "interrupted": (Ending("failed", "exited", 130), "KeyboardInterrupt", "exited with code 130", True),
    "exit_in_task": (EXITED_3, "SystemExit", "exited with code 3", True),
    "exit_in_awaited_task": (EXITED_3, "SystemExit", "exited with code 3", True),
    "exit_in_callback": (EXITED_3, "SystemExit", "exited with code 3", True),
    "exit_in_reader": (EXITED_3, "SystemExit", "exited with code 3", True),
    "exit_in_signal_handler": (EXITED_3, "SystemExit", "exited with code 3", True),
    "exit_in_two_tasks": (EXITED_3, "SystemExit", "exited with code 3", True),
    "exit_in_thread": (EXITED_3, "SystemExit", "exited with code 3", True),
    "os_exit": (Ending("failed", "exited", 4), None, "exited with code 4 while it was running", False),
    "os_exit_0": (Ending("failed", "exited", 0), None, "exited with code 0 while it was running", False),
    "segv": (Ending("killed", "signaled", None, signal.SIGSEGV), None, "SIGSEGV", False),
    "abort": (Ending("killed", "signaled", None, signal.SIGABRT), None, "SIGABRT", False),
}


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_J1_every_way_to_end_has_its_own_true_report(make_app: MakeApp, start_method: str) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(APP), num_idle_processes=2, max_idle_processes=2, start_method=start_method) as pool,
    ):
        kinds = {pool.submit(kind, timeout=50): kind for kind in ENDS}
        for handle, kind in kinds.items():
            report = await handle.wait()
            ending, error, said, calls_back = ENDS[kind]
            assert ending_of(report) == ending, kind
            assert (report.job_id, report.pid) == (handle.id, handle.pid)
            assert report.timings.started is not None
            assert (report.error is None) if error is None else report.error.type.endswith(error), kind
            assert said in f"{report.detail} {report.error and report.error.message}", kind
            assert report.result == ("a result" if ending == COMPLETED else None), kind
            assert ([handle.id] in stage.noted("callback")) == calls_back, kind
        assert stage.starts() == {handle.id: 1 for handle in kinds}
        await assert_recovered(pool, 2)


async def test_J1_a_traceback_tells_where_it_was_raised(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        for kind in ("raises", "unpicklable", "unspeakable", "leaving", "sys_exit"):
            report = await (await pool.launch(kind)).wait()
            assert report.error is not None
            assert f"in {kind}\n" in report.error.traceback
            assert report.error.type.rpartition(".")[2] in report.error.traceback


CRASHES = """
@app.entrypoint
async def entrypoint(ctx):
    match ctx.job.metadata:
        case "segv":
            ctypes.string_at(0)  # segv
        case "abort":
            os.abort()  # abort
        case "thread":
            await asyncio.to_thread(crash)
    os._exit(4)

def crash():
    os.abort()  # thread
"""


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_J1_a_crash_tells_where_it_was(make_app: MakeApp, start_method: str) -> None:
    app = make_app(CRASHES)
    file = app.partition(":")[0]
    lines = Path(file).read_text().splitlines()
    async with ProcessPool(app, num_idle_processes=1, start_method=start_method) as pool:
        for kind in ("segv", "abort", "thread"):
            report = await (await pool.launch(kind)).wait()
            assert report.reason == "signaled"
            place = place_in_stacks(report.stack_dump or "")
            assert place is not None, report.stack_dump
            assert place.file == file
            assert lines[place.line - 1].endswith(f"# {kind}")
        assert (await (await pool.launch("exit")).wait()).stack_dump is None


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1])
async def test_J1_killed_from_outside(make_app: MakeApp, signum: signal.Signals) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        handle = await pool.launch("stay")
        kill((await stage.next("job")).pid, signum)
        report = await handle.wait()
        assert ending_of(report) == Ending("killed", "signaled", None, signum)
        assert f"{signum.name} from outside" in report.detail
        assert "running" in report.detail
        assert stage.starts() == {handle.id: 1}
        await assert_recovered(pool, 1)


async def test_J1_six_different_ends_have_six_different_reports(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(APP), num_idle_processes=2, max_idle_processes=2) as pool,
    ):
        reports = [
            await (await pool.launch(kind)).wait() for kind in ("returns", "raises", "sys_exit", "os_exit", "segv")
        ]
        handle = await pool.launch("stay")
        kill((await stage.next("job")).pid, signal.SIGKILL)
        reports.append(await handle.wait())
        assert len(set(map(ending_of, reports))) == len({report.detail for report in reports}) == 6
        await assert_recovered(pool, 2)


RETURNED = """
@app.entrypoint
async def entrypoint(ctx):
    ctx.add_shutdown_callback(lambda: on_stage("callback"))
    return "a result"
"""


async def test_J1_killed_from_outside_after_it_had_returned(make_app: MakeApp) -> None:
    """The job has succeeded, and its result is there; what ended the process is told all the same."""
    async with Stage(make_app) as stage, ProcessPool(stage.app(RETURNED), num_idle_processes=1) as pool:
        handle = await pool.launch()
        kill((await stage.next("callback")).pid, signal.SIGKILL)
        report = await handle.wait()
        assert ending_of(report) == Ending("succeeded", "signaled", None, signal.SIGKILL)
        assert report.result == "a result"
        await assert_recovered(pool, 1)
