"""S14: a session forks without end. It is ended with all that it has started; the others notice nothing."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from outside import Supervisor, reap
from scarce_pids import pids_cgroup
from stage import Stage, assert_recovered, starting, steady
from support import DEADLINE, eventually, is_zombie, kill, zygote_pid

from greenroom import ProcessPool
from greenroom.system import families, mark, proc

MakeApp = Callable[[str], str]

APP = """
import mmap, struct, subprocess

MOST = 600  # processes: a bound for the machine that runs this test

def storm(leaves):
    # Each process forks in turn, as in a fork bomb.
    counter = mmap.mmap(-1, mmap.PAGESIZE)
    while (number := struct.unpack_from("i", counter)[0]) < MOST:
        struct.pack_into("i", counter, 0, number + 1)
        try:
            if os.fork() == 0 and leaves:
                os.setsid()
        except BlockingIOError:
            time.sleep(0.01)
    while True: signal.pause()

def rest(number):
    for _ in range(number):
        if os.fork() == 0:
            while True: signal.pause()

@app.entrypoint
async def entrypoint(ctx):
    kind, *number = (ctx.job.metadata or "quick").split()
    if kind == "quick":
        return "done"
    if kind in ("storm", "leaving"):
        storm(leaves=kind == "leaving")
    if kind == "rests":
        rest(int(number[0]))
    return await on_stage("job", ctx.job.id)
"""

LIMIT = 100


def of_pool(token: str) -> list[int]:
    """The pids of all sessions' processes, zombies too."""
    found = []
    for pid in proc.pids():
        with suppress(OSError):  # gone
            found += [pid] if mark.owner_of(pid, token) else []
    return found


def token_of(pool: ProcessPool) -> str:
    return (proc.environ_value(zygote_pid(pool), mark.VARIABLE.encode()) or b"").decode()


@pytest.mark.parametrize("case", ["zygote", "spawn", "zygote lost"])
@pytest.mark.parametrize("kind", ["storm", "leaving"])
async def test_S14_a_storm_ends_with_its_session_alone(make_app: MakeApp, kind: str, case: str) -> None:
    options: dict[str, Any] = {**steady(2), "process_limit": LIMIT, "prewarm_timeout": 60}
    if case == "spawn":
        options["start_method"] = "spawn"
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), **options) as pool:
        live = [await pool.launch("stay", timeout=DEADLINE) for _ in range(2)]
        visits = [await stage.next("job") for _ in live]
        if case == "zygote lost":
            lost = zygote_pid(pool)
            stormy = await pool.launch(kind, timeout=DEADLINE)
            kill(lost)
        else:
            stormy = await pool.launch(kind, timeout=DEADLINE)
        launched = await pool.launch(timeout=DEADLINE)  # in the midst of the storm
        assert (await launched.wait()).result == "done"
        report = await stormy.wait()
        assert (report.outcome, report.reason) == ("killed", "process_limit")
        assert report.detail.endswith(f"; process_limit is {LIMIT}"), report.detail
        for visit in visits:
            visit.order("fine")
        assert [(await handle.wait()).result for handle in live] == ["fine"] * 2
        await assert_recovered(pool, 2)
        assert pool.stats().zygote_restarts == (case == "zygote lost")


async def test_S14_nothing_is_left_of_a_storm_when_its_end_is_reported(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), **steady(1), process_limit=LIMIT) as pool:
        token = token_of(pool)
        for kind in ("storm", "leaving"):
            report = await (await pool.launch(kind, timeout=DEADLINE)).wait()
            assert report.reason == "process_limit"
            assert not [pid for pid in of_pool(token) if mark.owner_of(pid, token) == report.pid]


async def test_S14_processes_below_the_limit_are_left_alone(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1, process_limit=20) as pool:
        within = await pool.launch("rests 19", timeout=DEADLINE)
        visit = await stage.next("job")
        beyond = await pool.launch("rests 20", timeout=DEADLINE)
        report = await beyond.wait()
        assert (report.reason, report.detail) == ("process_limit", "it had 21 processes; process_limit is 20")
        assert len(families.of([visit.pid], token_of(pool))[visit.pid]) == 20
        visit.order("fine")
        assert (await within.wait()).result == "fine"


async def test_S14_a_storm_in_prewarm(make_app: MakeApp) -> None:
    prewarm = """
@app.prewarm
def prewarm(proc):
    if os.path.exists(LEDGER):
        return
    for _ in range(30):
        if os.fork() == 0:
            while True: signal.pause()
    signal.pause()
"""
    async with Stage(make_app) as stage:
        app = stage.app(APP + prewarm)
        pool = ProcessPool(app, num_idle_processes=1, max_idle_processes=1, process_limit=20, prewarm_timeout=60)
        async with starting(pool):
            await eventually(lambda: pool.is_open and list(pool.recent_reports), "a report")
            report = next(iter(pool.recent_reports))
            assert (report.outcome, report.reason, report.job_id) == ("killed", "process_limit", None)
            Path(stage.directory, "ledger").touch()
            await assert_recovered(pool, 1)


async def test_S14_without_a_limit_nothing_is_counted(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1, process_limit=None) as pool:
        handle = await pool.launch("rests 60", timeout=DEADLINE)
        visit = await stage.next("job")
        assert len(families.of([visit.pid], token_of(pool))[visit.pid]) == 61
        visit.order("fine")
        report = await handle.wait()
        assert (report.reason, report.descendants_killed) == ("completed", 60)


async def test_S14_orphans_count_as_their_session_s(make_app: MakeApp) -> None:
    """The zygote has adopted them. Those in its group are told by that, the others by the mark."""
    daemons = """
@app.entrypoint
async def entrypoint(ctx):
    for leaves in (False, True):
        for _ in range(15):
            if os.fork() == 0:
                if leaves: os.setsid()
                if os.fork() == 0:
                    while True: signal.pause()
                os._exit(0)
            os.wait()
    return await on_stage("job")
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(daemons), num_idle_processes=0) as pool:
        handle = await pool.launch(timeout=DEADLINE)
        visit = await stage.next("job")
        assert len(families.of([visit.pid], token_of(pool))[visit.pid]) == 31
        visit.order("fine")
        assert (await handle.wait()).descendants_killed == 30


CHURN = """
def churn():
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            for _ in range(10):
                if os.fork() == 0: os._exit(0)
            os._exit(0)
        os.waitpid(pid, 0)

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "churn":
        churn()
        await on_stage("churned")
    return "done"
"""


@pytest.mark.parametrize("start_method", ["zygote", pytest.param("spawn", marks=pytest.mark.more)])
async def test_S14_orphans_that_die_at_once_hold_up_nobody(make_app: MakeApp, start_method: str) -> None:
    """Thousands of zombies are reaped beside forks, while their session lives."""
    options: dict[str, Any] = {**steady(1), "start_method": start_method, "prewarm_timeout": 60, "stall_timeout": 600}
    async with Stage(make_app) as stage, ProcessPool(stage.app(CHURN), **options) as pool:
        handle = await pool.launch("churn", timeout=DEADLINE)
        for _ in range(3):
            assert (await (await pool.launch(timeout=DEADLINE)).wait()).result == "done"
        visit = await stage.next("churned")

        def zombies() -> int:
            parent = os.getpid() if start_method == "spawn" else zygote_pid(pool)
            return sum(is_zombie(pid) for pid in proc.children(parent))

        await eventually(lambda: zombies() == 0, "no zombies")
        visit.order("leave")
        assert (await handle.wait()).reason == "completed"
        assert pool.stats().zygote_restarts == 0


SERVE = """
async with ProcessPool(APP, num_idle_processes=1, max_idle_processes=1, idle_ttl=0.2, process_limit=LIMIT) as pool:
    live = await pool.launch("stay", timeout=60)
    report = await (await pool.launch("storm", timeout=60)).wait()
    await eventually(lambda: not pool.stats().breaker_open)  # its own forks failed for as long as the storm went on
    quick = await (await pool.launch(timeout=60)).wait()
    await eventually(lambda: pool.stats().idle == 1 and not pool.stats().warming)
    restarts = pool.stats().zygote_restarts
    say(reasons=[report.reason, quick.reason], detail=report.detail, live=live.state, restarts=restarts)
    await told()
"""


@pytest.mark.parametrize("limit", [40, 1000])
async def test_S14_a_storm_has_used_all_processes_that_there_may_be(make_app: MakeApp, limit: int) -> None:
    """The zygote's own forks fail meanwhile (EAGAIN), and the pool recovers."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("RLIMIT_NPROC counts a user's processes; to run as another one takes root, and setpriv")
    kept, user = "-all,+dac_read_search", 60_000 + os.getpid() % 5_000
    caps = (f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}")
    wrapper = ("prlimit", "--nproc=60", "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *caps)
    async with Stage(make_app) as stage:
        for path in (stage.directory, *stage.directory.iterdir()):
            path.chmod(0o777)
        async with Supervisor(stage.app(APP), f"LIMIT = {limit}\n{SERVE}", wrapper=wrapper) as supervisor:
            visit = await stage.next("job")
            said = await supervisor.says()
            detail = said.pop("detail")
            assert detail.endswith(f"; process_limit is {limit}")
            if limit > 60:
                assert " (the limit for all is 60 processes and threads)" in detail
            assert said == {
                "reasons": ["process_limit", "completed"],
                "live": "running",
                "restarts": 0,
            }
            visit.order("fine")
            supervisor.tell()
            assert await supervisor.ends() == 0


async def test_S14_a_storm_has_used_up_the_pids_of_the_cgroup(make_app: MakeApp) -> None:
    """As that of a container, which is smaller than the limit of one session."""
    with pids_cgroup() as group:
        bound = f"Path({str(group)!r}, 'cgroup.procs').write_text(str(os.getpid()))\n"
        (group / "pids.max").write_text("60")
        async with (
            Stage(make_app) as stage,
            Supervisor(stage.app(APP), f"LIMIT = 1000\n{bound}{SERVE}") as supervisor,
        ):
            visit = await stage.next("job")
            said = await supervisor.says()
            assert said["reasons"] == ["process_limit", "completed"]
            assert " (the limit for all is 60 processes and threads)" in said["detail"]
            assert (said["live"], said["restarts"]) == ("running", 0)
            visit.order("fine")
            supervisor.tell()
            assert await supervisor.ends() == 0


ENDLESS = """
async with ProcessPool(APP, num_idle_processes=1, process_limit=None) as pool:
    await pool.launch("leaving", timeout=60)
    say(zygote=zygote_pid(pool))
    await told()
"""


async def test_S14_supervisor_and_zygote_are_killed_in_the_midst_of_a_storm(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, Supervisor(stage.app(APP), ENDLESS) as supervisor:
        zygote: int = (await supervisor.says())["zygote"]
        token = (proc.environ_value(zygote, mark.VARIABLE.encode()) or b"").decode()
        await eventually(lambda: len(of_pool(token)) > 100, "a storm")
        supervisor.note_below()
        for signum in (signal.SIGSTOP, signal.SIGKILL):
            for pid in (supervisor.pid, zygote):
                kill(pid, signum)
        await supervisor.ends()
        seen: set[int] = set()

        def is_over() -> bool:
            seen.update(found := of_pool(token))
            return not reap(seen) and not found

        await eventually(is_over, "the end of the storm")
