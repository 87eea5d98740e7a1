"""J5: a job leaves processes behind. When its end is reported, none is left; while it lives, they are its own."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from stage import Stage, assert_recovered, steady
from support import eventually, is_gone, kill, zygote_pid

from greenroom import ProcessPool

MakeApp = Callable[[str], str]

APP = """
import subprocess

FOR_EVER = ["sleep", "100000"]

def forked(live):
    if os.fork() == 0:
        live()
        os._exit(0)

def rest():
    note("descendant", JOB, os.getpid())
    while True:
        signal.pause()

def executed(*command, **how):
    note("descendant", JOB, subprocess.Popen(command or FOR_EVER, **how).pid)

def ignoring_signals():
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_IGN)
    rest()

def daemon():
    os.setsid()
    forked(rest)

def family(depth=4):
    os.setsid()
    if depth:
        forked(lambda: family(depth - 1))
    rest()

def reaper_of_its_own():
    from greenroom.system import prctl
    prctl.set_child_subreaper()
    forked(daemon)
    rest()

def stopped():
    note("descendant", JOB, os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)

def heir_of_all_fds():
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            os.set_inheritable(fd, True)
        except OSError:
            pass
    note("descendant", JOB, os.getpid())
    os.execvp("sleep", FOR_EVER)

MAKERS = {
    "executed": executed,
    "session": lambda: executed(start_new_session=True),
    "no environment": lambda: executed("/bin/sleep", "100000", env={}, start_new_session=True),
    "writer": lambda: executed("yes"),
    "forked": lambda: forked(rest),
    "ignoring": lambda: forked(ignoring_signals),
    "daemon": lambda: forked(daemon),
    "family": lambda: forked(family),
    "reaper": lambda: forked(reaper_of_its_own),
    "stopped": lambda: forked(stopped),
    "heir": lambda: forked(heir_of_all_fds),
}
COUNTS = {"family": 5, "reaper": 2}

async def leave(kinds):
    for kind in kinds:
        MAKERS[kind]()
    while len(noted()) < sum(COUNTS.get(kind, 1) for kind in kinds):
        await asyncio.sleep(0.001)

def noted():
    with open(LEDGER) as file:
        return [line for line in file if line.startswith(f"descendant {JOB}")]

@app.entrypoint
async def entrypoint(ctx):
    global JOB
    JOB = ctx.job.id
    note("start", JOB)
    kinds, end = ctx.job.metadata
    await leave(kinds)
    if end == "stay":
        await on_stage("job")
    elif end == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif end == "exit":
        os._exit(4)
    return "a result"
"""

KINDS = {
    "executed": 1,
    "session": 1,
    "writer": 1,
    "forked": 1,
    "ignoring": 1,
    "daemon": 1,
    "family": 5,
    "reaper": 2,
    "stopped": 1,
    "heir": 1,
    "no environment": 1,
}


def descendants(stage: Stage) -> list[int]:
    return [int(pid) for _, pid in stage.noted("descendant")]


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
@pytest.mark.parametrize("kind", KINDS)
async def test_J5_none_is_left_when_the_end_is_reported(make_app: MakeApp, kind: str, start_method: str) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(APP), num_idle_processes=1, max_idle_processes=1, start_method=start_method) as pool,
    ):
        handle = await pool.launch([[kind], "return"])
        report = await handle.wait()
        pids = descendants(stage)
        assert [pid for pid in pids if not is_gone(pid)] == []
        assert report.descendants_killed >= len(pids) == KINDS[kind]  # one may not have left its child yet
        assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", "a result")
        assert stage.starts() == {handle.id: 1}
        await assert_recovered(pool, 1)


@pytest.mark.parametrize(("end", "reason"), [("return", "completed"), ("crash", "signaled"), ("exit", "exited")])
async def test_J5_all_kinds_at_once_however_the_job_ends(make_app: MakeApp, end: str, reason: str) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(APP), num_idle_processes=2, max_idle_processes=2) as pool,
    ):
        handles = [await pool.launch([list(KINDS), end]) for _ in range(2)]
        reports = [await handle.wait() for handle in handles]
        pids = descendants(stage)
        assert [pid for pid in pids if not is_gone(pid)] == []
        assert [report.reason for report in reports] == [reason] * 2
        assert sum(report.descendants_killed for report in reports) >= len(pids) == 2 * sum(KINDS.values())
        await assert_recovered(pool, 2)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
async def test_J5_none_is_left_of_a_job_that_is_killed(make_app: MakeApp, signum: int) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1, stall_timeout=0.5) as pool:
        handle = await pool.launch([list(KINDS), "stay"])
        kill((await stage.next("job")).pid, signum)
        report = await handle.wait()
        assert [pid for pid in descendants(stage) if not is_gone(pid)] == []
        assert report.reason == ("stalled" if signum == signal.SIGSTOP else "signaled")
        assert report.descendants_killed >= sum(KINDS.values())
        await assert_recovered(pool, 1)


@pytest.mark.parametrize("case", ["zygote", "spawn", "zygote lost"])
async def test_J5_the_descendants_of_a_live_job_are_left_alone(make_app: MakeApp, case: str) -> None:
    start_method = "spawn" if case == "spawn" else "zygote"
    kinds = ["daemon", "session", "family", "no environment"]
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(APP), **steady(1), start_method=start_method) as pool,
    ):
        live = await pool.launch([kinds, "stay"])
        visit = await stage.next("job")
        its_own = descendants(stage)
        if case == "zygote lost":
            kill(lost := zygote_pid(pool))
            await eventually(lambda: pool.stats().zygote_pid not in (lost, None), "another zygote")
        for end in ("return", "crash"):  # others end meanwhile, and what they leave is killed
            other = await (await pool.launch([["daemon"], end])).wait()
            assert other.descendants_killed >= 1
        assert [pid for pid in its_own if is_gone(pid)] == []
        visit.order("leave")
        report = await live.wait()
        assert [pid for pid in descendants(stage) if not is_gone(pid)] == []
        assert report.reason == "completed"
        assert report.descendants_killed >= len(its_own)
        await assert_recovered(pool, 1)


# A copy of the process that does not stay within the user's code, but goes on where the fork was.
COPIES = """
async def in_copy(kind):
    note("descendant", "copy", os.getpid())
    if kind == "return":
        return "the copy's"
    if kind == "raise":
        raise ValueError("the copy's")
    if kind == "exit":
        sys.exit(7)
    if kind == "beat":
        await asyncio.sleep(1000)

@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    kind, end = ctx.job.metadata
    ctx.add_shutdown_callback(lambda: note("callback", os.getpid()))
    if os.fork() == 0:
        return await in_copy(kind)
    if kind != "beat":
        await asyncio.to_thread(os.wait)
    if end == "stall":
        time.sleep(1000)
    await on_stage("job")
    return "its own"
"""


@pytest.mark.parametrize("kind", ["return", "raise", "exit", "beat"])
async def test_J5_a_forked_copy_does_not_speak_for_the_job(make_app: MakeApp, kind: str) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(COPIES), num_idle_processes=1) as pool:
        handle = await pool.launch([kind, "return"])
        visit = await stage.next("job")
        assert handle.state == "running"
        visit.order("leave")
        report = await handle.wait()
        assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", "its own")
        assert stage.noted("callback") == [[str(report.pid)]]
        assert [pid for pid in descendants(stage) if not is_gone(pid)] == []
        assert stage.starts() == {handle.id: 1}
        await assert_recovered(pool, 1)


async def test_J5_a_forked_copy_does_not_keep_a_stalled_job_alive(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(COPIES), num_idle_processes=1, stall_timeout=0.6) as pool,
    ):
        report = await (await pool.launch(["beat", "stall"])).wait()
        assert (report.outcome, report.reason) == ("killed", "stalled")
        assert " in entrypoint\n" in (report.stack_dump or "")
        assert [pid for pid in descendants(stage) if not is_gone(pid)] == []
        await assert_recovered(pool, 1)
