"""Processes that a session or preload starts, and signals that a session sends itself."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from faults.outside import Supervisor, reap
from faults.stage import Stage
from support import DEADLINE, eventually, idle_pids, is_gone, kill, zygote_pid

from greenroom import ExitReport, ProcessPool
from greenroom.system import proc

MakeApp = Callable[[str], str]


async def report_of(app: str, metadata: object = None, **options: object) -> ExitReport:
    async with ProcessPool(app, num_idle_processes=1, **options) as pool:
        return await (await pool.launch(metadata, timeout=DEADLINE)).wait()


# --- orphans of a session that lives --------------------------------------------------------------

BACKGROUND = """
import subprocess

async def put_into_background(count):
    for _ in range(count):
        shell = await asyncio.create_subprocess_exec("sh", "-c", "sleep 0.01 & exit 3")
        assert await shell.wait() == 3
"""


def zombies_below(pid: int) -> list[int]:
    found = []
    for child in proc.children(pid):
        try:
            found += [child] if proc.stat(child).state == "Z" else zombies_below(child)
        except OSError:  # gone
            continue
    return found


@pytest.mark.parametrize("case", ["zygote", "spawn", "zygote lost"])
async def test_dead_orphans_of_a_live_session_are_reaped(make_app: MakeApp, case: str) -> None:
    source = f"""{BACKGROUND}
@app.entrypoint
async def entrypoint(ctx):
    await on_stage("begin")
    await put_into_background(20)
    await on_stage("done")
    return "its result"
"""
    start_method = "spawn" if case == "spawn" else "zygote"
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(source), num_idle_processes=0, start_method=start_method) as pool,
    ):
        handle = await pool.launch(timeout=DEADLINE)
        visit = await stage.next("begin")
        if case == "zygote lost":
            kill(zygote_pid(pool))
        visit.order("go on")
        visit = await stage.next("done")
        await eventually(lambda: not zombies_below(visit.pid), "no zombie below the session")
        if case != "zygote lost":
            parent = proc.stat(visit.pid).ppid
            await eventually(lambda: not zombies_below(parent), "no zombie beside the session")
        visit.order("leave")
        assert (await handle.wait()).result == "its result"


async def test_own_children_keep_their_status_however_late_they_are_asked(make_app: MakeApp) -> None:
    source = f"""{BACKGROUND}
import multiprocessing

def end(code): sys.exit(code)

def fork():
    pid = os.fork()
    if pid == 0: os._exit(5)
    return pid

@app.entrypoint
async def entrypoint(ctx):
    popen = subprocess.Popen(["sh", "-c", "exit 4"])
    forked = fork()
    process = multiprocessing.get_context("fork").Process(target=end, args=(6,))
    process.start()
    awaited = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
    await put_into_background(20)
    await on_stage("dead")
    codes = [popen.poll(), os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]), await awaited.wait()]
    process.join()
    return [*codes, process.exitcode]
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(source), num_idle_processes=1) as pool:
        handle = await pool.launch(timeout=DEADLINE)
        visit = await stage.next("dead")
        # The loop has read that of its own subprocess; the others are for whoever started them.
        await eventually(lambda: len(zombies_below(visit.pid)) == 3, "three zombies that the session has forked itself")
        visit.order("leave")
        assert (await handle.wait()).result == [4, 5, 7, 6]


@pytest.fixture
def limited_realtime() -> Iterator[None]:
    """The one resource limit that marks are made of is in use: somebody means it."""
    before = resource.getrlimit(resource.RLIMIT_RTTIME)
    resource.setrlimit(resource.RLIMIT_RTTIME, (10_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_RTTIME, before)


# With walls, no session changes this limit.
SHEDDING = """
import resource, subprocess

def shed(**how):
    def prepare():
        resource.setrlimit(resource.RLIMIT_RTTIME, (5_000_000, resource.RLIM_INFINITY))
        if os.fork():
            os._exit(0)
    note("descendant", os.getpid())
    subprocess.Popen(["/bin/sleep", "100000"], preexec_fn=prepare, **how).wait()

@app.entrypoint
async def entrypoint(ctx):
    for how in ctx.job.metadata:
        shed(**how)
    await on_stage("job")
"""

ITS_GROUP = {"env": {}}
ITS_ENVIRONMENT = {"start_new_session": True}
NOTHING = {"env": {}, "start_new_session": True}


def sleepers(parent: int) -> list[int]:
    """The live ones among the children of a process, or its zygote's, that sleep."""
    found = []
    for pid in proc.children(parent):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as words:
            found += [pid] if words.read().startswith(b"/bin/sleep") else []
    return found


async def test_orphans_without_the_limit_are_told_by_environment_or_group(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(SHEDDING), num_idle_processes=2, walls="off") as pool:
        handles = [await pool.launch([ITS_GROUP, ITS_ENVIRONMENT], timeout=DEADLINE) for _ in range(2)]
        visits = [await stage.next("job") for _ in handles]
        below = sleepers(zygote_pid(pool))
        assert len(below) == 4
        visits[0].order("leave")
        first = next(handle for handle in handles if handle.pid == visits[0].pid)
        assert (await first.wait()).descendants_killed == 2
        assert sum(map(is_gone, below)) == 2
        visits[1].order("leave")
        second = next(handle for handle in handles if handle is not first)
        assert (await second.wait()).descendants_killed == 2
        assert all(map(is_gone, below))


async def test_an_orphan_without_any_mark_ends_with_the_last_that_may_own_it(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(SHEDDING), num_idle_processes=0, walls="off") as pool:
        older = await pool.launch([], timeout=DEADLINE)
        older_visit = await stage.next("job")
        owner = await pool.launch([NOTHING], timeout=DEADLINE)
        owner_visit = await stage.next("job")
        [orphan] = sleepers(zygote_pid(pool))
        owner_visit.order("leave")
        assert (await owner.wait()).descendants_killed == 0
        assert not is_gone(orphan)
        older_visit.order("leave")
        assert (await older.wait()).descendants_killed == 1
        assert is_gone(orphan)


async def test_where_marks_do_not_hold_orphans_stay_below_their_session(
    make_app: MakeApp, limited_realtime: None
) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(SHEDDING), num_idle_processes=2, walls="off") as pool:
        handles = [await pool.launch([NOTHING], timeout=DEADLINE) for _ in range(2)]
        visits = [await stage.next("job") for _ in handles]
        below = {visit.pid: sleepers(visit.pid) for visit in visits}
        assert [len(pids) for pids in below.values()] == [1, 1]
        visits[0].order("leave")
        first = next(handle for handle in handles if handle.pid == visits[0].pid)
        assert (await first.wait()).descendants_killed == 1
        assert [is_gone(pids[0]) for pids in below.values()] == [True, False]
        visits[1].order("leave")
        await next(handle for handle in handles if handle is not first).wait()
        assert is_gone(below[visits[1].pid][0])


FORKED_AND_SHEDDING = """
import resource

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "leave" and os.fork() == 0:
        resource.setrlimit(resource.RLIMIT_RTTIME, (5_000_000, resource.RLIM_INFINITY))
        os.setsid()
        pid = os.fork()
        if pid == 0:
            while True: signal.pause()
        note("descendant", pid)
        os._exit(0)
    if ctx.job.metadata == "leave":
        os.wait()
    await on_stage("job")
"""


async def test_where_there_is_no_zygote_an_orphan_without_owner_is_left_alone(make_app: MakeApp) -> None:
    """It is between fork and exec, for instance: its environment is the pool's, and names no session."""
    async with Stage(make_app) as stage:
        options = {"num_idle_processes": 0, "start_method": "spawn", "walls": "off"}
        async with ProcessPool(stage.app(FORKED_AND_SHEDDING), **options) as pool:  # type: ignore[arg-type]
            owner = await pool.launch("leave", timeout=DEADLINE)
            owner_visit = await stage.next("job")
            other = await pool.launch("none", timeout=DEADLINE)
            (await stage.next("job")).order("leave")
            assert (await other.wait()).descendants_killed == 0
            [[orphan]] = stage.noted("descendant")
            assert not is_gone(int(orphan))
            owner_visit.order("leave")
            assert (await owner.wait()).descendants_killed == 1
        assert is_gone(int(orphan))


LEAVES_LATER = """
import subprocess

@app.preload
def preload():
    global helper
    leave = "while read line; do sh -c '/bin/sleep 100000 &'; echo; done"
    helper = subprocess.Popen(["sh", "-c", leave], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

@app.entrypoint
async def entrypoint(ctx):
    helper.stdin.write(b"leave\\n")
    helper.stdin.flush()
    assert helper.stdout.readline()
"""


@pytest.mark.parametrize("case", ["marks hold", "marks do not hold"])
async def test_what_a_helper_of_preload_leaves_outlives_sessions(
    make_app: MakeApp, case: str, request: pytest.FixtureRequest
) -> None:
    if case == "marks do not hold":
        request.getfixturevalue("limited_realtime")
    async with ProcessPool(make_app(LEAVES_LATER), num_idle_processes=0) as pool:
        report = await (await pool.launch(timeout=DEADLINE)).wait()
        assert (report.outcome, report.descendants_killed) == ("succeeded", 0)
        await eventually(lambda: len(sleepers(zygote_pid(pool))) == 1, "what the helper has left")


# --- signals that a session sends itself ----------------------------------------------------------

SIGTERMS = """
import _thread

async def term(): os.kill(os.getpid(), signal.SIGTERM)
async def native(): await asyncio.to_thread(getattr(ctypes.CDLL(None), "raise"), signal.SIGTERM)
async def blocked():
    threading.Timer(0, os.kill, [os.getpid(), signal.SIGTERM]).start()
    time.sleep(1000)

@app.entrypoint
async def entrypoint(ctx):
    await globals()[ctx.job.metadata]()
    return "a wrong result"
"""
SYNC_SIGTERMS = """
def term(): os.kill(os.getpid(), signal.SIGTERM)
def native(): getattr(ctypes.CDLL(None), "raise")(signal.SIGTERM)

@app.entrypoint
def entrypoint(ctx):
    globals()[ctx.job.metadata]()
    return "a wrong result"
"""


@pytest.mark.parametrize("source", [SIGTERMS, SYNC_SIGTERMS], ids=["async", "sync"])
async def test_a_session_ends_by_its_own_sigterm(make_app: MakeApp, source: str) -> None:
    async with ProcessPool(make_app(source), num_idle_processes=2) as pool:
        ways = [way for way in ("term", "native", "blocked") if f"def {way}" in source]
        handles = [await pool.launch(way, timeout=DEADLINE) for way in ways]
        for report in [await handle.wait() for handle in handles]:
            assert (report.outcome, report.reason, report.signal) == ("killed", "signaled", signal.SIGTERM)
            assert report.detail == "SIGTERM from itself or from outside, while it was running"


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_an_operator_ends_one_session_by_sigterm(make_app: MakeApp, start_method: str) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(), num_idle_processes=1, start_method=start_method) as pool,
    ):
        handle = await pool.launch("stay", timeout=DEADLINE)
        kill((await stage.next("job")).pid, signal.SIGTERM)
        report = await handle.wait()
        assert (report.outcome, report.reason, report.signal) == ("killed", "signaled", signal.SIGTERM)


@pytest.mark.parametrize("word", ["async ", ""])
async def test_a_sigint_of_its_own_is_a_keyboard_interrupt(make_app: MakeApp, word: str) -> None:
    source = f"""
import _thread

@app.entrypoint
{word}def entrypoint(ctx):
    ctx.add_shutdown_callback(lambda: note("callback"))
    if ctx.job.metadata == "kill":
        os.kill(os.getpid(), signal.SIGINT)
    else:
        _thread.interrupt_main()
    {"await asyncio.sleep(1000)" if word else ""}
    return "a wrong result"
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(source), num_idle_processes=2) as pool:
        handles = [await pool.launch(way, timeout=DEADLINE) for way in ("kill", "interrupt")]
        for report in [await handle.wait() for handle in handles]:
            assert (report.outcome, report.reason, report.exit_code) == ("failed", "exited", 130)
            assert report.error is not None
            assert report.error.type == "KeyboardInterrupt"
        assert stage.noted("callback") == [[], []]


async def test_a_signal_to_all_processes_ends_no_session(make_app: MakeApp) -> None:
    """As ``systemctl stop`` sends it under ``KillMode=control-group``."""
    async with Stage(make_app) as stage, ProcessPool(stage.app(), num_idle_processes=2) as pool:
        handles = [await pool.launch("stay", timeout=DEADLINE) for _ in range(2)]
        visits = [await stage.next("job") for _ in handles]
        await eventually(lambda: pool.stats().idle == 2, "two idle processes")
        idle = idle_pids(pool)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for pid in [*(visit.pid for visit in visits), *idle, zygote_pid(pool)]:
                kill(pid, signum)
        for visit in visits:
            visit.order("leave")
        assert [(await handle.wait()).reason for handle in handles] == ["completed"] * 2
        assert set(idle) <= {process.pid for process in pool.processes}


IN_NATIVE_CODE = """
import ctypes

@app.entrypoint
async def entrypoint(ctx):
    # A signal goes to another thread, and does not interrupt the call; its handler has to wait for the main thread.
    signals = signal.SIGTERM, signal.SIGHUP
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(STAGE)
        sock.sendall(f"native {os.getpid()} {ctx.job.id}\\n".encode())
        ctypes.CDLL(None).recv(sock.fileno(), ctypes.create_string_buffer(1), 1, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    if ctx.job.metadata == "its own":
        os.kill(os.getpid(), signal.SIGTERM)
    return "its result"
"""


def is_in_recv(pid: int) -> bool:
    """Return whether the main thread of a process waits in recv(2): number 45 on x86-64, 207 on arm64."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in ("45", "207")


async def test_a_signal_to_all_ends_no_session_that_hears_it_late(make_app: MakeApp) -> None:
    """The handler runs after a long native call, such as a model's on a busy machine."""
    async with Stage(make_app) as stage, ProcessPool(stage.app(IN_NATIVE_CODE), num_idle_processes=2) as pool:
        handles = [await pool.launch(name, timeout=DEADLINE) for name in ("the group's", "its own")]
        visits = [await stage.next("native") for _ in handles]
        # Before the native call, Python would handle the signals at once: another thread gets them.
        await eventually(lambda: all(is_in_recv(visit.pid) for visit in visits), "sessions in native code")
        for pid in [*(visit.pid for visit in visits), zygote_pid(pool)]:
            kill(pid, signal.SIGTERM)
            kill(pid, signal.SIGHUP)  # as systemd's SendSIGHUP= does
        await eventually(lambda: len(idle_pids(pool)) == 2, "two idle processes")
        before = idle_pids(pool)
        kill(before[0])
        # The zygote has forked its replacement, and so has heard the signals.
        await eventually(lambda: set(idle_pids(pool)) - set(before), "a replacement")
        await asyncio.sleep(1.5)  # more than it takes a signal to reach the whole group
        for visit in visits:
            visit.order("leave")
        reports = [await handle.wait() for handle in handles]
        assert [report.reason for report in reports] == ["completed", "signaled"]


# --- what preload has started ---------------------------------------------------------------------

HELPERS = """
import concurrent.futures, multiprocessing, subprocess
from multiprocessing import shared_memory

fork = multiprocessing.get_context("fork")

def help(name):
    def end(signum, frame):
        note("ended", name)
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    note("helps", name)
    while True: signal.pause()

@app.preload
def preload():
    global manager, shared, cat, executor, block, helpers
    manager = fork.Manager()
    shared = manager.dict(sessions=0)
    cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    executor = concurrent.futures.ProcessPoolExecutor(1, fork)
    block = shared_memory.SharedMemory(create=True, size=100)
    helpers = [fork.Process(target=help, args=(f"daemon={daemon}",), daemon=daemon) for daemon in (True, False)]
    for helper in helpers: helper.start()
    note("preloaded", manager._process.pid, cat.pid, *(helper.pid for helper in helpers), block.name)

@app.entrypoint
def entrypoint(ctx):
    shared["sessions"] += 1
    cat.stdin.write(f"{shared['sessions']}\\n".encode())
    cat.stdin.flush()
    square = executor.submit(pow, shared["sessions"], 2).result()
    strange = {each.pid for each in multiprocessing.active_children()} - set(executor._processes)
    return [shared["sessions"], int(cat.stdout.readline()), square, list(strange)]
"""


async def test_helpers_of_preload_live_and_end_with_the_zygote(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage:
        async with ProcessPool(stage.app(HELPERS), num_idle_processes=1) as pool:
            for number in (1, 2, 3):
                report = await (await pool.launch(timeout=DEADLINE)).wait()
                assert report.result == [number, number, number**2, []], report
            *pids, block = stage.noted("preloaded")[0]
            assert not any(is_gone(int(pid)) for pid in pids)
            await eventually(lambda: len(stage.noted("helps")) == 2, "two helpers")
        assert all(is_gone(int(pid)) for pid in pids)
        assert not Path("/dev/shm", block).exists()
        assert sorted(stage.noted("ended")) == [["daemon=False"], ["daemon=True"]]


@pytest.mark.parametrize("which", ["zygote", "supervisor"])
async def test_helpers_of_preload_do_not_outlive_a_zygote_that_is_lost(make_app: MakeApp, which: str) -> None:
    script = """
async with ProcessPool(APP, num_idle_processes=1) as pool:
    await eventually(lambda: pool.stats().idle == 1)
    say(zygote=zygote_pid(pool))
    await told()
"""
    async with Stage(make_app) as stage, Supervisor(stage.app(HELPERS), script) as supervisor:
        said = await supervisor.says()
        *pids, block = stage.noted("preloaded")[0]
        supervisor.note_below()
        kill(said["zygote"] if which == "zygote" else supervisor.pid)
        await eventually(lambda: all(is_gone(int(pid)) for pid in pids), "the end of what preload has started")
        if which == "zygote":  # sessions that it has forked may go on to use the memory
            assert Path("/dev/shm", block).exists()
            supervisor.tell()
            assert await supervisor.ends() == 0
        else:
            await eventually(lambda: not reap({said["zygote"]}), "the end of the zygote")
        await eventually(lambda: not Path("/dev/shm", block).exists(), "the end of its shared memory")
