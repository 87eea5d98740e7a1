"""Habits of programs: what a process has open at its end, what ends an event loop, what an import does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import DEADLINE, Kept, eventually, listening

from greenroom import AppLoadError, ExitReport, ProcessPool

MakeApp = Callable[[str], str]


async def report_of(app: str, metadata: object = None, **options: object) -> ExitReport:
    async with ProcessPool(app, num_idle_processes=1, **options) as pool:
        return await (await pool.launch(metadata, timeout=DEADLINE)).wait()


# --- the end of a process -------------------------------------------------------------------------


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_what_is_written_and_not_closed_is_in_the_file(
    make_app: MakeApp, tmp_path: Path, start_method: str
) -> None:
    source = """
    import gzip, tempfile, wave
    kept = []

    @app.prewarm
    def prewarm(proc):
        proc.userdata["text"] = open(os.path.join(FOLDER, "text"), "a")  # of the next process, too

    @app.entrypoint
    async def entrypoint(ctx):
        ctx.proc.userdata["text"].write("a transcript")
        kept.append(open(os.path.join(FOLDER, "bytes"), "wb")); kept[-1].write(b"raw")
        kept.append(gzip.open(os.path.join(FOLDER, "packed"), "wt")); kept[-1].write("packed")
        kept.append(wave.open(os.path.join(FOLDER, "sound"), "wb"))
        kept[-1].setparams((1, 2, 8000, 0, "NONE", "")); kept[-1].writeframesraw(bytes(100))
        kept.append(tempfile.NamedTemporaryFile(dir=FOLDER, prefix="temporary"))
        kept.append(open("/dev/full", "w")); kept[-1].write("no room")
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            return os.path.exists(kept[4].name)
    """
    source = source.replace("FOLDER", repr(str(tmp_path)))
    report = await report_of(make_app(source), start_method=start_method)
    assert (report.outcome, report.result) == ("succeeded", True)  # the copy has left the temporary file

    import gzip
    import wave

    assert (tmp_path / "text").read_text() == "a transcript"
    assert (tmp_path / "bytes").read_bytes() == b"raw"
    with gzip.open(tmp_path / "packed", "rt") as packed:
        assert packed.read() == "packed"
    with wave.open(str(tmp_path / "sound")) as sound:
        assert sound.getnframes() == 50
    assert not list(tmp_path.glob("temporary*"))


async def test_what_preload_writes_and_does_not_close_is_in_the_file_at_the_end(
    make_app: MakeApp, tmp_path: Path
) -> None:
    source = f"""
    import tempfile
    kept = []

    @app.preload
    def preload():
        kept.append(open({str(tmp_path / "text")!r}, "w")); kept[-1].write("loaded")
        kept.append(tempfile.NamedTemporaryFile(dir={str(tmp_path)!r}, prefix="temporary"))

    @app.entrypoint
    async def entrypoint(ctx): return os.path.exists(kept[1].name)
    """
    async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
        for _ in range(2):
            assert (await (await pool.launch(timeout=DEADLINE)).wait()).result is True
    assert (tmp_path / "text").read_text() == "loaded"
    assert not list(tmp_path.glob("temporary*"))


async def test_an_error_of_a_task_that_nobody_awaits_is_told(make_app: MakeApp) -> None:
    source = """
    kept = []

    async def fail(): raise ValueError("nobody asked")

    async def fail_when_cancelled():
        try: await asyncio.sleep(60)
        finally: raise LookupError("when cancelled")

    @app.entrypoint
    async def entrypoint(ctx):
        kept.extend([asyncio.create_task(fail()), asyncio.create_task(fail_when_cancelled())])
        await asyncio.sleep(0)
    """
    with listening(Kept(), "greenroom") as kept:
        await report_of(make_app(source))
    assert len(kept.of("was never retrieved")) == 2


# --- what ends an event loop ----------------------------------------------------------------------


async def test_a_loop_that_is_stopped_ends_the_job_with_its_callbacks(make_app: MakeApp) -> None:
    source = """
    @app.entrypoint
    async def entrypoint(ctx):
        ctx.add_shutdown_callback(lambda: print("called back"))
        asyncio.get_running_loop().stop()
        await asyncio.Event().wait()
    """
    with listening(Kept(), "greenroom") as kept:
        report = await report_of(make_app(source))
    assert (report.outcome, report.reason, report.exit_code) == ("failed", "raised", 1)
    assert report.error is not None
    assert report.error.message == "Event loop stopped before Future completed."
    assert kept.lines() == ["called back"]


async def test_a_loop_that_is_stopped_as_the_entrypoint_returns_has_its_result(make_app: MakeApp) -> None:
    source = """
    @app.entrypoint
    async def entrypoint(ctx):
        asyncio.get_running_loop().stop()
        return 7
    """
    report = await report_of(make_app(source))
    assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", 7)


async def test_an_exit_in_a_task_logs_no_error_of_the_entrypoints(make_app: MakeApp) -> None:
    source = """
    tasks = []

    async def leave(): sys.exit(4)

    @app.entrypoint
    async def entrypoint(ctx):
        tasks.append(asyncio.create_task(leave()))
        await asyncio.Event().wait()
    """
    with listening(Kept(), "greenroom") as kept:
        report = await report_of(make_app(source))
    assert (report.reason, report.exit_code) == ("exited", 4)
    assert not kept.of("the entrypoint failed")
    assert not kept.of("was never retrieved")


# --- context --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prewarm", "entrypoint"), [("def", "def"), ("async def", "async def"), ("def", "async def"), ("async def", "def")]
)
async def test_what_prewarm_sets_in_a_context_is_set_in_the_entrypoint(
    make_app: MakeApp, prewarm: str, entrypoint: str
) -> None:
    source = f"""
    import contextvars
    tenant = contextvars.ContextVar("tenant", default="nobody")

    @app.prewarm
    {prewarm} prewarm(proc): tenant.set("acme")

    @app.entrypoint
    {entrypoint} entrypoint(ctx): return tenant.get()
    """
    assert (await report_of(make_app(source))).result == "acme"


# --- what an import leaves, or does --------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "loop = asyncio.new_event_loop()",
        "asyncio.set_event_loop(asyncio.new_event_loop())",
    ],
)
async def test_an_event_loop_made_at_import_is_named(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    source = f"""
    {source}

    @app.entrypoint
    async def entrypoint(ctx): return 1
    """
    async with ProcessPool(make_app(source), num_idle_processes=0):
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "an event loop was made while the app was loaded" in warnings[0]


async def test_a_handler_that_rotates_is_named(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = f"""
    from logging.handlers import RotatingFileHandler, TimedRotatingFileHandler

    class OfManyProcesses(RotatingFileHandler):
        def doRollover(self): super().doRollover()

    os.chdir({str(tmp_path)!r})
    kept = [RotatingFileHandler("by_size", maxBytes=100, delay=True), TimedRotatingFileHandler("by_time")]
    kept += [RotatingFileHandler("never"), OfManyProcesses("knows", maxBytes=100)]

    @app.entrypoint
    async def entrypoint(ctx): return 1
    """
    async with ProcessPool(make_app(source), num_idle_processes=0):
        named = [name for name in ("by_size", "by_time", "never", "knows") if f"/{name} renames" in caplog.text]
    assert named == ["by_size", "by_time"]


async def test_an_exit_at_import_is_told_with_its_place_and_a_remedy(make_app: MakeApp) -> None:
    source = """
    import argparse
    argparse.ArgumentParser().parse_args(["start"])
    """
    with pytest.raises(AppLoadError) as told:
        async with ProcessPool(make_app(source), num_idle_processes=0):
            pass
    assert "app_0.py, line 7" in str(told.value)
    assert "SystemExit: 2" in str(told.value)
    assert '__name__ == "__main__"' in str(told.value)


async def test_generators_that_objects_or_libraries_hold_are_named(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library = tmp_path / "site-packages"
    library.mkdir()
    (library / "names.py").write_text("import random\nshared = random.Random()\nclass Maker:\n  own = 1")
    source = f"""
    sys.path.append({str(library)!r})
    import names
    fake, far = names.Maker(), [[[[[random.Random()]]]]]
    fake.factories = [names.Maker()]
    fake.factories[0].source = random.Random()
    fake.factories[0].back = fake
    fake.shared = names.shared

    @app.entrypoint
    async def entrypoint(ctx): ...
    """
    async with ProcessPool(make_app(source), num_idle_processes=0):
        told = [r.getMessage() for r in caplog.records if "generator of random numbers" in r.getMessage()]
    assert len(told) == 2
    assert any("names.shared is" in each and "call names.shared.seed() in prewarm" in each for each in told)
    assert any("app_0.fake.factories[0].source is" in each for each in told)


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("prewarm", "asyncio.get_running_loop()"),
        ("entrypoint", "asyncio.get_running_loop()"),
        ("entrypoint", "signal.signal(signal.SIGUSR1, print)"),
    ],
)
async def test_a_sync_function_that_is_to_be_async_is_told(make_app: MakeApp, function: str, call: str) -> None:
    source = """
    def prewarm(proc): pass
    def entrypoint(ctx): pass
    def FUNCTION(_): CALL

    app.prewarm(prewarm)
    app.entrypoint(entrypoint)
    """.replace("FUNCTION", function).replace("CALL", call)
    with listening(Kept(), "greenroom") as kept:
        async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
            if function == "entrypoint":
                report = await (await pool.launch(timeout=DEADLINE)).wait()
                assert "Write it as `async def`" in report.error.traceback  # type: ignore[union-attr]
            else:
                await eventually(lambda: kept.of("prewarm failed"))
                assert kept.of("Write it as `async def`")


@pytest.mark.parametrize("streams", [[0], [0, 1, 2]])
async def test_an_app_may_close_its_standard_streams(make_app: MakeApp, streams: list[int]) -> None:
    source = f"""
    @app.preload
    def preload():
        for fd in {streams}: os.close(fd)

    @app.entrypoint
    async def entrypoint(ctx): print("heard")
    """
    with listening(Kept(), "greenroom") as kept:
        assert (await report_of(make_app(source))).outcome == "succeeded"
    assert kept.lines() == ["heard"]


async def test_a_session_that_needs_a_terminal_is_told(make_app: MakeApp) -> None:
    source = """
    @app.entrypoint
    async def entrypoint(ctx):
        if ctx.job.metadata == "ask": input("name? ")
        breakpoint()
        ctx.job
    """
    async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
        for word in ("ask", "break"):
            report = await (await pool.launch(word, timeout=DEADLINE)).wait()
            assert report.error is not None
            assert "has a terminal" in report.error.traceback


async def test_progress_bars_in_preload_leave_no_thread_and_no_shared_lock(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tqdm")
    source = """
    from tqdm import tqdm

    @app.preload
    def preload(): list(tqdm(range(3)))

    @app.entrypoint
    async def entrypoint(ctx):
        if ctx.job.metadata == "die":
            tqdm.get_lock().acquire()
            os._exit(3)
        return [len(list(tqdm(range(3)))), tqdm.monitor_interval > 0]
    """
    async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
        await (await pool.launch("die", timeout=DEADLINE)).wait()
        report = await (await pool.launch(timeout=DEADLINE)).wait()
    assert report.result == [3, True]
    assert "lock of multiprocessing" not in caplog.text


async def test_locks_that_all_sessions_share_are_named(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    source = """
    import multiprocessing
    counter = multiprocessing.Value("i", 0)

    @app.entrypoint
    async def entrypoint(ctx): ...
    """
    async with ProcessPool(make_app(source), num_idle_processes=0):
        assert caplog.text.count("a lock of multiprocessing") == 1


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_timers_of_preload_end_nobody(make_app: MakeApp, start_method: str) -> None:
    source = """
    @app.preload
    def preload():
        for timer, signum in ((signal.ITIMER_PROF, signal.SIGPROF), (signal.ITIMER_REAL, signal.SIGALRM)):
            signal.signal(signum, lambda *_: None)
            signal.setitimer(timer, 0.001, 0.001)

    @app.entrypoint
    async def entrypoint(ctx):
        while time.process_time() < 0.2: pass
        return [signal.getitimer(timer)[0] for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL)]
    """
    report = await report_of(make_app(source), start_method=start_method)
    assert (report.outcome, report.result) == ("succeeded", [0.0, 0.0])
