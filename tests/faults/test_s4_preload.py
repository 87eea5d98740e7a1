"""S4: what ``preload`` can do wrong is refused or reported, with names and with what to do."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable

import pytest
from scarce_cpu import HOG, require_a_second_cpu, starved, without_stacks
from stage import Stage
from support import eventually

from greenroom import AppLoadError, NoCapacity, ProcessPool
from greenroom.system import proc

MakeApp = Callable[[str], str]
alone = pytest.mark.alone  # it takes a whole CPU from everybody else

ENTRYPOINT = """
@app.entrypoint
async def entrypoint(ctx):
    return "done"
"""

NATIVE_THREAD = """
libc = ctypes.CDLL(None)
handle = ctypes.c_ulong()

def start_native_thread():
    pause = ctypes.cast(libc.pause, ctypes.c_void_p)
    assert libc.pthread_create(ctypes.byref(handle), None, pause, None) == 0
    assert libc.pthread_setname_np(handle, b"telemetry") == 0
"""


TIME_TO_HANG = 3.0
"""Seconds for an app of two lines to come to where it hangs."""


async def refusal_of(app: str, **options: float) -> str:
    pool = ProcessPool(app, num_idle_processes=1, **options)
    with pytest.raises(AppLoadError) as caught:
        await pool.start()
    return str(caught.value)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("raise ValueError('no such model')", r"ValueError: no such model\n(.|\n)*in preload"),
        ("sys.exit('no such model')", r"SystemExit: no such model"),
        ("raise type('Odd', (BaseException,), {'__str__': None})()", r"Odd: <no message"),
        ("os._exit(3)", r"ended while it loaded the app \(exit code 3\)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"ended while it loaded the app \(signal 11\)"),
    ],
)
async def test_S4_preload_raises_or_exits(make_app: MakeApp, statement: str, message: str) -> None:
    refusal = await refusal_of(make_app(f"@app.preload\ndef preload():\n    {statement}\n{ENTRYPOINT}"))
    assert re.search(message, refusal), refusal


@pytest.mark.parametrize(
    "hang", ["time.sleep(1000)", "ctypes.PyDLL(None).pause()", "os.kill(os.getpid(), signal.SIGSTOP)"]
)
async def test_S4_preload_hangs(make_app: MakeApp, hang: str) -> None:
    source = f"""
def load_weights():
    {hang}

@app.preload
def preload():
    load_weights()
{ENTRYPOINT}"""
    refusal = await refusal_of(make_app(source), preload_timeout=TIME_TO_HANG)
    assert f"preload_timeout ({TIME_TO_HANG:g} s)" in refusal
    assert "load_weights" in refusal, "the stack that it hung in"


@alone
async def test_S4_preload_hangs_and_is_starved_of_cpu(make_app: MakeApp) -> None:
    source = f"""{HOG}
@app.preload
def preload():
    start_hog()
    block_on_stage("preload")
    busy()
{ENTRYPOINT}"""
    async with Stage(make_app) as stage:
        refused = asyncio.create_task(refusal_of(stage.app(source), preload_timeout=TIME_TO_HANG))
        visit = await stage.next("preload")
        hog = int(stage.noted("hog")[0][0])
        await eventually(lambda: proc.stat(hog).state == "T")
        with starved(visit.pid, hog):
            await visit.ordered("go on")
            await without_stacks(visit.pid, 2.0, refused.done)
        assert " in preload\n" in await refused


async def test_S4_an_import_that_hangs(make_app: MakeApp) -> None:
    refusal = await refusal_of(make_app(f"threading.Event().wait()\n{ENTRYPOINT}"), preload_timeout=TIME_TO_HANG)
    assert f"preload_timeout ({TIME_TO_HANG:g} s)" in refusal
    assert "<module>" in refusal


@pytest.mark.parametrize(
    ("start", "name"),
    [
        ("threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()", "poller"),
        ("start_native_thread()", "telemetry"),
    ],
)
async def test_S4_preload_starts_a_thread(make_app: MakeApp, start: str, name: str) -> None:
    source = f"{NATIVE_THREAD}\n@app.preload\ndef preload():\n    {start}\n{ENTRYPOINT}"
    refusal = await refusal_of(make_app(source))
    assert "1 thread(s) besides its own" in refusal
    assert name in refusal
    assert "Start threads in prewarm" in refusal
    assert "load it in @app.service" in refusal
    assert "allow_threads" in refusal

    permitted = source.replace("@app.preload", f"app = greenroom.App(allow_threads=['{name}'])\n@app.preload")
    async with ProcessPool(make_app(permitted), num_idle_processes=1) as pool:
        assert (await (await pool.launch()).wait()).result == "done"
    other = permitted.replace(f"['{name}']", "['somebody else']")
    assert name in await refusal_of(make_app(other))


async def test_S4_a_library_starts_native_threads(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy")
    app = make_app(f"@app.preload\ndef preload():\n    import numpy\n{ENTRYPOINT}")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")  # the operator's word counts more than the default
    refusal = await refusal_of(app)
    assert "thread(s) besides its own" in refusal
    assert "set OPENBLAS_NUM_THREADS=1" in refusal
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    async with ProcessPool(app, num_idle_processes=1) as pool:
        assert (await (await pool.launch()).wait()).result == "done"


@pytest.mark.parametrize(("statement", "kind"), [("kept = socket.socket()", "socket:"), ("kept = os.pipe()", "pipe:")])
async def test_S4_preload_leaves_an_fd_open(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, statement: str, kind: str
) -> None:
    source = f"import socket\n@app.preload\ndef preload():\n    global kept\n    {statement}\n{ENTRYPOINT}"
    with caplog.at_level(logging.WARNING, "greenroom"):
        async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
            assert (await (await pool.launch()).wait()).result == "done"
    warnings = [record.getMessage() for record in caplog.records if "preload left fd" in record.getMessage()]
    assert len(warnings) == (1 if kind == "socket:" else 2)
    assert all(kind in warning and "open it in prewarm instead" in warning for warning in warnings)


async def test_S4_what_is_harmless_is_not_warned_of(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    source = f"""
@app.preload
def preload():
    global kept
    kept = open(__file__), open(os.devnull)
    thread = threading.Thread(target=print)
    thread.start()
    thread.join()
{ENTRYPOINT}"""
    with caplog.at_level(logging.WARNING, "greenroom"):
        async with ProcessPool(make_app(source), num_idle_processes=1):
            pass
    assert not caplog.records


ENDS_LATE = r"""
import hashlib, subprocess
HOG = "import os, time; os.nice(-20); end = time.monotonic() + 2\nprint(flush=True)\nwhile time.monotonic() < end: pass"

def end_when_told():
    tid = threading.get_native_id()
    os.sched_setaffinity(tid, {CPU})
    os.setpriority(os.PRIO_PROCESS, tid, 19)
    begun.set()
    told.wait()
    end = time.thread_time() + 0.03
    while time.thread_time() < end:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10000)  # a while without the GIL

@app.preload
def preload():
    global begun, told
    begun, told = threading.Event(), threading.Event()
    threading.Thread(target=end_when_told).start()
    begun.wait()
    hog = subprocess.Popen([sys.executable, "-c", HOG], stdout=subprocess.PIPE,
                           preexec_fn=lambda: os.sched_setaffinity(0, {CPU}))
    hog.stdout.readline()
    hog.stdout.close()
    told.set()
"""


@alone
async def test_S4_a_thread_that_ends_as_soon_as_it_has_a_cpu_is_no_reason_to_refuse(make_app: MakeApp) -> None:
    require_a_second_cpu()
    source = f"CPU = {max(os.sched_getaffinity(0))}\n{ENDS_LATE}{ENTRYPOINT}"
    async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
        assert (await (await pool.launch()).wait()).result == "done"


@pytest.mark.parametrize(
    ("start", "name"),
    [
        ("threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()", "poller"),
        ("start_native_thread()", "telemetry"),
    ],
)
async def test_S4_a_thread_that_starts_later_is_refused_at_the_fork(make_app: MakeApp, start: str, name: str) -> None:
    source = f"{NATIVE_THREAD}\nos.register_at_fork(after_in_parent=lambda: {start})\n{ENTRYPOINT}"
    async with ProcessPool(make_app(source), num_idle_processes=2) as pool:
        await eventually(lambda: pool.stats().idle == 1, "the one process that was forked before")
        assert (await (await pool.launch()).wait()).result == "done"
        await eventually(lambda: pool.stats().breaker_open, "breaker")
        stats = pool.stats()
        assert not stats.ready
        assert name in str(stats.breaker_cause)
        assert "Start threads in prewarm" in str(stats.breaker_cause)
        with pytest.raises(NoCapacity, match=name) as turned_down:
            await pool.launch()
        assert turned_down.value.reason == "breaker_open"
