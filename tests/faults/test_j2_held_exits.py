"""J2: something holds the end of a job. Its deadline ends it and says so, and the user's callbacks come first."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from stage import Stage, assert_recovered

from greenroom import ProcessPool

MakeApp = Callable[[str], str]

APP = """
import atexit

async def hang_async():
    note("callback")
    await asyncio.Event().wait()

async def hang_and_ignore_cancellation():
    note("callback")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            note("ignored")

def hang_sync():
    note("callback")
    threading.Event().wait()

def hang_in_c():
    note("callback")
    while True:
        ctypes.PyDLL(None).pause()

def hang_in_thread():
    threading.Event().wait()

def hang_in_hook():
    threading.Event().wait()

async def generate():
    try:
        yield 1
    finally:
        await asyncio.Event().wait()

def stuff_stdout():
    read, write = os.pipe()  # nobody will read it
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, bytes(4096))
    except BlockingIOError:
        os.set_blocking(write, True)
    sys.stdout = os.fdopen(write, "w")
    print("this stays in the buffer until the exit")

@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    kind = ctx.job.metadata
    if kind.startswith("hang") and kind not in ("hang_in_thread", "hang_in_hook"):
        ctx.add_shutdown_callback(globals()[kind])
    ctx.add_shutdown_callback(lambda: note("another"))
    if kind == "hang_in_thread":
        threading.Thread(target=hang_in_thread).start()
    elif kind == "hang_in_executor":
        ctx.executed = asyncio.get_running_loop().run_in_executor(None, hang_in_thread)
    elif kind == "hang_in_hook":
        atexit.register(hang_in_hook)
    elif kind == "stuff_stdout":
        stuff_stdout()
    elif kind == "generate":
        ctx.proc.userdata["generator"] = generator = generate()
        await anext(generator)
    return "a result"

def hang_in_executor():
    pass
"""

SHORT = {"shutdown_timeout": 1.0, "cleanup_timeout": 2.5}
"""For what hangs. What does not must come to its end within them, on a busy machine as well."""


@pytest.mark.parametrize(
    ("kind", "complaint", "where", "signum"),
    [
        # An async callback is cut off, and the process goes on to its own end.
        ("hang_async", "shutdown callbacks", "in hang_async", None),
        ("hang_and_ignore_cancellation", "shutdown callbacks", "in hang_and_ignore_cancellation", None),
        # The rest can only be killed.
        ("hang_sync", "shutdown callbacks", "in hang_sync", signal.SIGKILL),
        ("hang_in_c", "shutdown callbacks", "in hang_in_c", signal.SIGKILL),
        ("hang_in_thread", "clean-up", "in hang_in_thread", signal.SIGKILL),
        ("hang_in_executor", "clean-up", "in hang_in_thread", signal.SIGKILL),
        ("hang_in_hook", "clean-up", "in hang_in_hook", signal.SIGKILL),
        ("stuff_stdout", "clean-up", "in flush_stdio", signal.SIGKILL),
        ("generate", "clean-up", "in select", signal.SIGKILL),
    ],
)
async def test_J2_what_holds_the_exit_is_ended_and_named(
    make_app: MakeApp, kind: str, complaint: str, where: str, signum: int | None
) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1, **SHORT) as pool:
        handle = await pool.launch(kind)
        report = await handle.wait()
        # A job that has returned, and whose callbacks are over, has succeeded, whatever holds its process.
        outcome = "succeeded" if complaint == "clean-up" else "killed"
        assert (report.outcome, report.reason, report.signal) == (outcome, "shutdown_timeout", signum)
        assert report.exit_code == (0 if signum is None else None)
        assert complaint in report.detail
        assert where in (report.stack_dump or "")
        assert report.result == "a result"  # the job itself had returned
        # What blocks the loop blocks the callbacks after it, too; nothing else keeps one from being called.
        assert len(stage.noted("another")) == (0 if kind in ("hang_sync", "hang_in_c") else 1)
        assert stage.starts() == {handle.id: 1}
        await assert_recovered(pool, 1)


ORDER = """
import atexit

async def in_the_background():
    try:
        await asyncio.Event().wait()
    finally:
        note("order", "task cancelled")

async def background_is_alive(task):
    await asyncio.sleep(0.05)
    assert not task.done()
    note("order", "callback ended")

def in_a_thread(end):
    end.wait()
    note("order", "thread ended")

@app.entrypoint
async def entrypoint(ctx):
    task = asyncio.create_task(in_the_background())
    end = threading.Event()
    threading.Thread(target=in_a_thread, args=(end,)).start()
    threading._register_atexit(end.set)
    atexit.register(note, "order", "hook")
    ctx.add_shutdown_callback(lambda: background_is_alive(task))
    await asyncio.sleep(0)
    note("order", "entrypoint ended")
"""


async def test_J2_user_callbacks_come_before_the_clean_up(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(ORDER), num_idle_processes=1) as pool:
        report = await (await pool.launch()).wait()
        assert (report.outcome, report.reason) == ("succeeded", "completed")
        assert [" ".join(words) for words in stage.noted("order")] == [
            "entrypoint ended",
            "callback ended",
            "task cancelled",
            "thread ended",
            "hook",
        ]
        await assert_recovered(pool, 1)


BUDGETS = """
import atexit

@app.entrypoint
async def entrypoint(ctx):
    ctx.add_shutdown_callback(lambda: asyncio.sleep(ctx.job.metadata["callback"]))
    atexit.register(time.sleep, ctx.job.metadata["hook"])
"""


@pytest.mark.parametrize(
    ("options", "metadata"),
    [
        ({"shutdown_timeout": 30, "cleanup_timeout": 2.5}, {"callback": 3.0, "hook": 0}),
        ({"shutdown_timeout": 1.5, "cleanup_timeout": 30}, {"callback": 0, "hook": 3.0}),
    ],
)
async def test_J2_callbacks_and_clean_up_have_a_budget_each(
    make_app: MakeApp, options: dict[str, float], metadata: dict[str, float]
) -> None:
    async with ProcessPool(make_app(BUDGETS), num_idle_processes=1, **options) as pool:
        report = await (await pool.launch(metadata)).wait()
        assert (report.outcome, report.reason, report.exit_code) == ("succeeded", "completed", 0)
        await assert_recovered(pool, 1)


FAILING = """
class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError
    __repr__ = __str__

class BadCallback:
    def __repr__(self):
        raise RuntimeError
    def __call__(self, reason):
        raise Unspeakable

def fail(error):
    def callback():
        note("failed")
        raise error
    return callback

def fail_later(error):
    async def callback():
        await asyncio.sleep(0)
        note("failed")
        raise error
    return callback

async def last(reason):
    await asyncio.sleep(0.1)
    note("last", reason or "-")

@app.entrypoint
async def entrypoint(ctx):
    ctx.add_shutdown_callback(BadCallback())
    for error in (ValueError("x"), Unspeakable(), SystemExit(7), SystemExit(8), KeyboardInterrupt(), GeneratorExit(),
                  asyncio.CancelledError(), BaseExceptionGroup("all", [SystemExit(9)])):
        ctx.add_shutdown_callback(fail(error))
        ctx.add_shutdown_callback(fail_later(error))
    ctx.add_shutdown_callback(last)
    if ctx.job.metadata == "raise":
        raise ValueError("the job's own")
    if ctx.job.metadata == "exit":
        sys.exit(3)
    if ctx.job.metadata == "wait":
        note("waits")
        await ctx.wait_for_shutdown()
"""


@pytest.mark.parametrize(
    ("kind", "outcome", "reason", "exit_code"),
    [
        ("return", "succeeded", "completed", 0),
        ("raise", "failed", "raised", 1),
        ("exit", "failed", "exited", 3),
        ("wait", "cancelled", "cancelled", 0),
    ],
)
async def test_J2_a_callback_that_raises_stops_no_other_and_changes_no_report(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, kind: str, outcome: str, reason: str, exit_code: int
) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(FAILING), num_idle_processes=1) as pool:
        handle = await pool.launch(kind)
        if kind == "wait":
            handle.cancel("the caller hung up")
        report = await handle.wait()
        assert (report.outcome, report.reason, report.exit_code) == (outcome, reason, exit_code)
        assert len(stage.noted("failed")) == 16
        assert stage.noted("last") == [["the", "caller", "hung", "up"] if kind == "wait" else ["-"]]
        assert "ValueError: x" in caplog.text
        assert "SystemExit: 7" in caplog.text
        await assert_recovered(pool, 1)
