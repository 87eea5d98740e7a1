"""A session is a Python program like any other: habits that work under ``python agent.py`` work here, or are named."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from support import DEADLINE, Kept, eventually, listening

from greenroom import AppLoadError, ExitReport, ProcessPool

MakeApp = Callable[[str], str]


async def report_of(app: str, metadata: object = None, **options: object) -> ExitReport:
    async with ProcessPool(app, num_idle_processes=1, **options) as pool:
        return await (await pool.launch(metadata, timeout=DEADLINE)).wait()


# --- what a session starts ------------------------------------------------------------------------


async def test_what_a_session_forks_is_ended_by_terminate(make_app: MakeApp) -> None:
    source = """
    import multiprocessing

    def square(n): return n * n

    def work():
        fork = multiprocessing.get_context("fork")
        child = fork.Process(target=threading.Event().wait, daemon=True)
        child.start()
        child.terminate()
        child.join()
        with fork.Pool(2) as pool:  # whose end is terminate(), and a join
            return [child.exitcode, sum(pool.map(square, range(4)))]

    @app.entrypoint
    async def entrypoint(ctx): return await asyncio.to_thread(work)
    """
    assert (await report_of(make_app(source))).result == [-15, 14]


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
@pytest.mark.parametrize("end", ["os.abort()", "pass", "os.kill(os.getpid(), 9)"])
async def test_a_resource_tracker_cleans_up_after_its_session(make_app: MakeApp, end: str, start_method: str) -> None:
    source = f"""
    from multiprocessing import shared_memory

    @app.entrypoint
    async def entrypoint(ctx):
        shm = shared_memory.SharedMemory(create=True, size=100_000, name=ctx.job.metadata)
        {end}
    """
    name = f"greenroom-test-{os.getpid()}-{len(end)}"
    block = Path("/dev/shm", name)
    await report_of(make_app(source), name, start_method=start_method)
    assert not block.exists()


# --- sync functions -------------------------------------------------------------------------------


async def test_a_stop_iteration_in_a_sync_entrypoint_is_raised(make_app: MakeApp) -> None:
    report = await report_of(make_app("@app.entrypoint\ndef entrypoint(ctx): return next(iter([]))"))
    assert (report.outcome, report.reason) == ("failed", "raised")
    assert report.error is not None
    assert report.error.type == "StopIteration"


async def test_a_sync_prewarm_and_a_sync_entrypoint_share_a_thread(make_app: MakeApp) -> None:
    source = """
    import sqlite3

    @app.prewarm
    def prewarm(proc): proc.userdata["db"] = sqlite3.connect(":memory:")

    @app.entrypoint
    def entrypoint(ctx): return ctx.proc.userdata["db"].execute("select 7").fetchone()
    """
    assert (await report_of(make_app(source))).result == [7]


@pytest.mark.parametrize("word", ["async ", ""])
async def test_no_loop_runs_around_a_sync_prewarm(make_app: MakeApp, word: str) -> None:
    source = f"""
    async def answer(): return 42

    @app.prewarm
    def prewarm(proc): proc.userdata["answer"] = asyncio.run(answer())

    @app.entrypoint
    {word}def entrypoint(ctx): return ctx.proc.userdata["answer"]
    """
    assert (await report_of(make_app(source))).result == 42


async def test_a_sync_entrypoint_ends_itself_from_its_thread(make_app: MakeApp) -> None:
    source = """
    @app.entrypoint
    def entrypoint(ctx):
        ctx.add_shutdown_callback(lambda reason: print(f"because of {reason}"))
        ctx.shutdown("its own will")
        return "what it returns"
    """
    report = await report_of(make_app(source))
    assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", "what it returns")


async def test_an_async_entrypoint_is_ended_from_another_thread(make_app: MakeApp) -> None:
    source = """
    @app.entrypoint
    async def entrypoint(ctx):
        threading.Thread(target=ctx.shutdown, args=("another thread",)).start()
        return await ctx.wait_for_shutdown()
    """
    assert (await report_of(make_app(source))).result == "another thread"


# --- error trackers -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["prewarm", "entrypoint"])
async def test_an_error_is_logged_in_its_process_where_it_is_raised(
    make_app: MakeApp, where: str, tmp_path: Path
) -> None:
    source = f"""
    import logging

    class Tracker(logging.Handler):
        def emit(self, record):
            with open({str(tmp_path / "heard")!r}, "a") as file:
                print(os.getpid(), record.exc_info[1], file=file)

    logging.getLogger().addHandler(Tracker(logging.ERROR))

    @app.prewarm
    async def prewarm(proc):
        if {where!r} == "prewarm": raise LookupError("no such model")

    @app.entrypoint
    async def entrypoint(ctx): raise LookupError("no such model")
    """
    app = make_app(source)
    if where == "entrypoint":
        report = await report_of(app)
        assert (tmp_path / "heard").read_text() == f"{report.pid} no such model\n"
        return
    async with ProcessPool(app, num_idle_processes=1):
        await eventually(lambda: "no such model" in (tmp_path / "heard").read_text(), "what the tracker hears")


# --- what preload has made ------------------------------------------------------------------------


PRELOADED = """
import atexit, contextlib, multiprocessing, tempfile, weakref
from pathlib import Path

held = {}

def note(word):
    with open(NOTES, "a") as file:
        print(word, os.getpid(), file=file)

@app.preload
def preload():
    held["folder"] = tempfile.TemporaryDirectory()
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    held["unpacked"] = stack.enter_context(tempfile.TemporaryDirectory())
    atexit.register(note, "hook")
    held["object"] = Preload()
    weakref.finalize(held["object"], note, "finalizer")
    note("preload")

class Preload: ...

@app.entrypoint
async def entrypoint(ctx):
    atexit.register(note, "session's hook")
    return [Path(held["folder"].name).is_dir(), Path(held["unpacked"]).is_dir()]
"""


async def test_what_preload_has_made_outlives_sessions_and_ends_with_the_zygote(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(f"NOTES = {str(tmp_path / 'notes')!r}\n{PRELOADED}")
    async with ProcessPool(app, num_idle_processes=1) as pool:
        for _ in range(3):
            assert (await (await pool.launch(timeout=DEADLINE)).wait()).result == [True, True]
    notes = [line.rsplit(" ", 1) for line in (tmp_path / "notes").read_text().splitlines()]
    zygote = notes[0][1]
    assert [word for word, pid in notes if pid == zygote] == ["preload", "hook", "finalizer"]
    assert [word for word, pid in notes if pid != zygote] == 3 * ["session's hook"]


@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX"])
async def test_a_connection_of_preloads_is_closed_in_each_process(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, tmp_path: Path, family: str
) -> None:
    """A pair of sockets has no name, and both of its ends are the app's: it is shared, as an event loop's is."""
    address = ("127.0.0.1", 0) if family == "AF_INET" else str(tmp_path / "database")
    source = f"""
    import select, socket

    @app.preload
    def preload():
        global mine, listener, pair
        listener = socket.create_server({address!r}, family=socket.{family})
        mine = socket.socket(socket.{family})
        mine.connect(listener.getsockname())
        pair = socket.socketpair()

    @app.entrypoint
    async def entrypoint(ctx):
        pair[0].send(b"x")
        try: mine.send(b"x")
        except BrokenPipeError: is_closed = True
        is_like_it = type(mine.getsockname()) is type(listener.getsockname())  # as libraries take for granted
        readable = [each is mine for each in select.select([mine], [], [], 0)[0]]
        return [mine.recv(1).decode(), pair[1].recv(1).decode(), is_closed, is_like_it, readable]  # the end, at once
    """
    report = await report_of(make_app(source))
    assert report.result == ["", "x", True, True, [True]]
    assert caplog.text.count("which is closed in each process: open it in prewarm instead") == 1
    assert f"to {tmp_path / 'database' if family == 'AF_UNIX' else '127.0.0.1:'}" in caplog.text


async def test_each_process_sends_to_a_unix_socket_by_its_own(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Messages, as a system's log takes them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(DEADLINE)
        source = f"""
        import socket
        mine = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        mine.connect({str(tmp_path / "log")!r})
        socket_of_zygote = os.fstat(mine.fileno()).st_ino

        @app.entrypoint
        async def entrypoint(ctx):
            mine.send(b"a line")
            return os.fstat(mine.fileno()).st_ino != socket_of_zygote
        """
        assert (await report_of(make_app(source))).result is True
        assert log.recv(100) == b"a line"
    assert "preload left fd" not in caplog.text


async def test_a_file_that_preload_reads_has_an_offset_in_each_process(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "voices").write_text("abcdef")
    source = f"""
    voices = open({str(tmp_path / "voices")!r})
    voices.seek(2)

    @app.entrypoint
    async def entrypoint(ctx): return os.read(voices.fileno(), 2).decode()
    """
    async with ProcessPool(make_app(source), num_idle_processes=2) as pool:
        handles = [await pool.launch(timeout=DEADLINE) for _ in range(3)]
        assert [(await handle.wait()).result for handle in handles] == ["cd", "cd", "cd"]


async def test_an_open_database_of_preloads_is_named(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "calls.db"
    sqlite3.connect(path).close()
    source = f"""
    import sqlite3
    shared = sqlite3.connect({str(path)!r})
    shared.execute("create table t (n)")

    @app.entrypoint
    async def entrypoint(ctx): ...
    """
    async with ProcessPool(make_app(source), num_idle_processes=0):
        assert "preload left fd" in caplog.text
        assert "calls.db" in caplog.text


async def test_generators_of_random_numbers_are_named(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    source = """
    mine, safe = random.Random(), random.SystemRandom()

    class Voice:
        def __init__(self): self.noise = random.Random()

    class Lazy:
        @property
        def __dict__(self): raise RuntimeError("loaded")

    voice, lazy, voices, names = Voice(), Lazy(), {"en": random.Random()}, [random.Random(), mine]

    @app.entrypoint
    async def entrypoint(ctx): ...
    """
    async with ProcessPool(make_app(source), num_idle_processes=0):
        for name in ("mine", "voice.noise", "voices['en']", "names[0]"):
            assert f"app_0.{name} is a generator of random numbers" in caplog.text
        assert "safe" not in caplog.text
        assert "names[1]" not in caplog.text


# --- traps of the environment ---------------------------------------------------------------------


async def test_a_replaced_json_does_not_reach_the_wire(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    source = """
    import json, logging
    dumps = json.dumps
    json.dumps = lambda value, default=None, option=None: dumps(value).encode()
    json.loads = lambda text: None
    json.JSONEncoder.default = lambda self, value: "whatever"
    json.JSONEncoder.encode = json.JSONEncoder.iterencode = json.JSONDecoder.decode = lambda *_, **__: "nothing"

    @app.entrypoint
    async def entrypoint(ctx):
        logging.getLogger("app").warning("a record")
        return object() if ctx.job.metadata is None else {"got": ctx.job.metadata}
    """
    async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
        report = await (await pool.launch({"a": [1.5, "ü\\ud800"]}, timeout=DEADLINE)).wait()
        assert report.result == {"got": {"a": [1.5, "ü\\ud800"]}}
        report = await (await pool.launch(timeout=DEADLINE)).wait()
        assert report.reason == "raised"
        assert "not plain data" in str(report.error)
        await eventually(lambda: "a record" in caplog.text, "the record")


async def test_gevent_is_refused_by_name(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As gevent marks what it has replaced; the package itself is not among the tests'."""
    (tmp_path / "gevent").mkdir()
    (tmp_path / "gevent" / "__init__.py").write_text("")
    (tmp_path / "gevent" / "monkey.py").write_text("saved = {}\ndef patch_all(): saved['threading'] = {'Lock': 1}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    app = make_app("import gevent.monkey\ngevent.monkey.patch_all()\n@app.entrypoint\nasync def entrypoint(ctx): ...")
    with pytest.raises(AppLoadError, match="gevent"):
        await ProcessPool(app).start()
    async with ProcessPool(app, num_idle_processes=1, start_method="spawn"):
        await eventually(lambda: "gevent.monkey.patch_all() has replaced" in caplog.text, "the refusal of a process")


# --- apps that are not simple ---------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after_in_child"])
async def test_a_library_may_close_its_connections_at_a_fork(make_app: MakeApp, when: str) -> None:
    source = f"""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    mine = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    os.register_at_fork({when}=lambda: [each.close() for each in mine])

    @app.entrypoint
    async def entrypoint(ctx): return "served"
    """
    async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
        for _ in range(3):
            assert (await (await pool.launch(timeout=DEADLINE)).wait()).result == "served"


async def test_a_listener_of_preloads_is_shared(make_app: MakeApp) -> None:
    source = """
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    only_named = os.open("/etc/hostname", os.O_PATH)

    @app.entrypoint
    async def entrypoint(ctx):
        with socket.create_connection(listener.getsockname()):
            return listener.accept()[0].fileno() > 0
    """
    assert (await report_of(make_app(source))).result is True


async def test_a_udp_socket_is_a_new_one_like_it(make_app: MakeApp) -> None:
    source = """
    import socket

    peer = socket.socket(type=socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    mine = socket.socket(type=socket.SOCK_DGRAM)
    mine.connect(peer.getsockname())
    mine.setblocking(False)
    own_address = mine.getsockname()

    @app.entrypoint
    async def entrypoint(ctx):
        is_like_it = mine.getpeername() == peer.getsockname() and not os.get_blocking(mine.fileno())
        return [is_like_it, mine.getsockname() != own_address]
    """
    assert (await report_of(make_app(source))).result == [True, True]


async def test_a_tcp_log_handler_connects_anew(make_app: MakeApp) -> None:
    source = """
    import logging.handlers, socket

    listener = socket.create_server(("127.0.0.1", 0))
    handler = logging.handlers.SysLogHandler(listener.getsockname(), socktype=socket.SOCK_STREAM)
    logging.getLogger("syslog").addHandler(handler)

    @app.entrypoint
    async def entrypoint(ctx):
        logging.getLogger("syslog").warning("heard")
        listener.accept()  # that of the zygote
        return listener.accept()[0].recv(100).decode()
    """
    assert "heard" in str((await report_of(make_app(source))).result)


async def test_objects_that_refuse_to_be_looked_at_do_no_harm(make_app: MakeApp) -> None:
    source = """
    class Lazy:
        @property
        def __class__(self): raise RuntimeError("not configured")

    settings = Lazy()
    __file__ = type("NoText", (), {})()

    @app.entrypoint
    async def entrypoint(ctx): return "served"
    """
    assert (await report_of(make_app(source))).result == "served"


async def test_a_log_handler_that_raises_hides_no_error(make_app: MakeApp) -> None:
    source = """
    import logging

    class Broken(logging.Handler):
        def emit(self, record): raise LookupError("of the handler")

    logging.getLogger().addHandler(Broken())

    @app.entrypoint
    async def entrypoint(ctx):
        ctx.add_shutdown_callback(lambda: print("called"))
        raise ValueError("of the job")
    """
    report = await report_of(make_app(source))
    assert (report.reason, report.error and report.error.message) == ("raised", "of the job")


async def test_a_copy_that_comes_back_from_a_sync_prewarm_harms_nobody(make_app: MakeApp) -> None:
    source = """
    @app.prewarm
    def prewarm(proc):
        pid = os.fork()
        if pid: os.waitpid(pid, 0)

    @app.entrypoint
    async def entrypoint(ctx): return "served"
    """
    assert (await report_of(make_app(source))).result == "served"


async def test_an_async_function_behind_a_decorator_shares_the_main_thread(make_app: MakeApp) -> None:
    source = """
    import functools, sqlite3

    def traced(fn):
        @functools.wraps(fn)
        def run(ctx): return fn(ctx)
        return run

    @app.prewarm
    def prewarm(proc): proc.userdata["db"] = sqlite3.connect(":memory:")

    @app.entrypoint
    @traced
    async def entrypoint(ctx): return ctx.proc.userdata["db"].execute("select 7").fetchone()
    """
    assert (await report_of(make_app(source))).result == [7]


async def test_an_async_function_behind_a_decorator_ends_itself(make_app: MakeApp) -> None:
    source = """
    def traced(fn):
        def run(ctx): return fn(ctx)
        return run

    @app.entrypoint
    @traced
    async def entrypoint(ctx):
        ctx.shutdown("its own will")
        await asyncio.sleep(0.05)  # it has time to return
        return "what it returns"
    """
    assert (await report_of(make_app(source))).result == "what it returns"


# --- pools of processes, and modules --------------------------------------------------------------


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_functions_of_the_app_go_to_pools_that_spawn(make_app: MakeApp, start_method: str) -> None:
    source = """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    def square(n): return n * n

    def work(method):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
            return pool.submit(square, 7).result()

    @app.entrypoint
    async def entrypoint(ctx): return await asyncio.to_thread(work, "spawn")
    """
    assert (await report_of(make_app(source), start_method=start_method, prewarm_timeout=DEADLINE)).result == 49


async def test_handlers_that_import_the_app_register_on_it(tmp_path: Path) -> None:
    (tmp_path / "agent_of_two.py").write_text("import greenroom\napp = greenroom.App()\nimport handlers_of_two\n")
    handlers = "from agent_of_two import app\n@app.entrypoint\nasync def entrypoint(ctx): return 'handled'\n"
    (tmp_path / "handlers_of_two.py").write_text(handlers)
    assert (await report_of(f"{tmp_path / 'agent_of_two.py'}:app")).result == "handled"


async def test_a_hook_of_a_library_runs_wherever_it_is_installed(make_app: MakeApp, tmp_path: Path) -> None:
    """A tracker flushes in each session, though ``pip install --target`` has put it beside the app."""
    (tmp_path / "vendored" / "tracker-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "vendored" / "tracker-1.0.dist-info" / "RECORD").write_text(
        "tracker.py,,\ntracker-1.0.dist-info/RECORD,,\n"
    )
    flushes = "import atexit\natexit.register(lambda: print('flushed', flush=True))\n"
    (tmp_path / "vendored" / "tracker.py").write_text(flushes)
    source = f"""
    sys.path.append({str(tmp_path / "vendored")!r})
    import tracker

    @app.entrypoint
    async def entrypoint(ctx): ...
    """
    with listening(Kept(), "greenroom") as heard:
        await report_of(make_app(source))
        await eventually(lambda: "flushed" in heard.lines(), "a flush in the session")
