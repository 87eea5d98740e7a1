"""S1: the supervisor is SIGKILLed. Nothing that it had started is left, whatever it was doing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from outside import Supervisor, reap, still_alive, token_of
from stage import Stage
from support import eventually, wait_for_file

from greenroom.system import proc

MakeApp = Callable[[str], str]

APP = """
import subprocess

def leave_grandchildren():
    subprocess.Popen(["sleep", "1000"])
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if os.fork() == 0:  # an orphan from the start, in a session of its own
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.pause()
        os._exit(0)
    os.wait()

@app.entrypoint
async def entrypoint(ctx):
    kind = ctx.job.metadata
    if kind == "grandchildren":
        leave_grandchildren()
    note("at", kind, os.getpid())
    if kind == "gil":
        ctypes.PyDLL(None).pause()  # PyDLL keeps the GIL
    if kind == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    await asyncio.Event().wait()
"""

SERVE = """
pool = ProcessPool(APP, num_idle_processes=2)
await pool.start()
for kind in KINDS:
    await pool.launch(kind)
say(zygote=zygote_pid(pool), idle=idle_pids(pool))
await asyncio.Event().wait()
"""


async def all_gone(token: bytes, before: set[int]) -> None:
    """Neither those that were there nor any that came since is left, and none as a zombie."""
    everyone = set(before)

    def is_done() -> bool:
        if reap(everyone):
            return False  # a look at all processes of the machine is for when these are gone: it takes some CPU
        everyone.update(alive := still_alive(token))
        return not alive

    await eventually(is_done, "end of everything that the supervisor had started")


async def kill_and_look(supervisor: Supervisor, zygote: int, *, at_least: int) -> None:
    token = token_of(zygote)
    await eventually(lambda: len(still_alive(token)) >= at_least, f"{at_least} processes")
    before = still_alive(token)
    supervisor.signal(signal.SIGKILL)
    assert await supervisor.ends() == -signal.SIGKILL
    await all_gone(token, before | {zygote})


@pytest.mark.parametrize("kind", ["idle", "running", "gil", "stopped"])
async def test_S1_killed_with_a_child_that_is(make_app: MakeApp, kind: str) -> None:
    kinds = [] if kind == "idle" else [kind]
    async with Stage(make_app) as stage, Supervisor(stage.app(APP), f"KINDS = {kinds}\n{SERVE}") as supervisor:
        said = await supervisor.says()
        await eventually(lambda: len(stage.noted("at")) == len(kinds), "job at its place")
        state = "T" if kind == "stopped" else "S"  # asleep: in epoll, or in C
        await eventually(lambda: all(proc.stat(int(pid)).state == state for _, pid in stage.noted("at")), state)
        await kill_and_look(supervisor, said["zygote"], at_least=1 + len(kinds))


@pytest.mark.parametrize("zygote_is_lost", [False, True])
async def test_S1_killed_with_grandchildren(make_app: MakeApp, zygote_is_lost: bool) -> None:
    script = f"KINDS = ['grandchildren']\n{SERVE}"
    if zygote_is_lost:
        # The job and its grandchildren are not below the zygote then that outlives the supervisor.
        script = script.replace(
            "say(",
            """
os.kill(lost := zygote_pid(pool), signal.SIGKILL)
await eventually(lambda: pool.stats().zygote_pid not in (lost, None) and pool.stats().idle >= 2)
say(""",
        )
    async with Stage(make_app) as stage, Supervisor(stage.app(APP), script) as supervisor:
        said = await supervisor.says()
        await eventually(lambda: stage.noted("at"), "grandchildren")
        await kill_and_look(supervisor, said["zygote"], at_least=1 + 2 + 1 + 3)


async def test_S1_killed_while_many_forks_are_in_flight(make_app: MakeApp) -> None:
    script = """
    pool = ProcessPool(APP, num_idle_processes=60, max_concurrent_prewarms=60)
    starting = asyncio.create_task(pool.start())
    await asyncio.sleep(0)  # the pool is open
    await eventually(lambda: pool.stats().idle > 2)
    say(zygote=zygote_pid(pool), warming=pool.stats().warming)
    await asyncio.Event().wait()
    """
    async with Stage(make_app) as stage, Supervisor(stage.app(APP), script) as supervisor:
        said = await supervisor.says()
        assert said["warming"] > 0
        await kill_and_look(supervisor, said["zygote"], at_least=2)


HELD = """
def hold():
    if not os.path.exists(HOLD):
        return
    with open(HELD, "a") as held:
        held.write("x")
    while True:
        signal.pause()
"""

KEEP_ONE_FORK_GOING = """
hold = Path(HOLD)
async with ProcessPool(APP, num_idle_processes=1) as pool:
    await pool.launch("running")
    await eventually(lambda: pool.stats().idle == 1)
    hold.touch()
    await pool.launch("running")
    say(zygote=zygote_pid(pool))
    await asyncio.Event().wait()
"""


async def kill_while_a_fork_hangs(make_app: MakeApp, where: str) -> None:
    async with Stage(make_app) as stage:
        hold, held = stage.directory / "hold", stage.directory / "held"
        names = f"HOLD, HELD = {str(hold)!r}, {str(held)!r}\n"
        source = f"{names}{HELD}\nos.register_at_fork({where}=hold)\n{APP}"
        async with Supervisor(stage.app(source), KEEP_ONE_FORK_GOING.replace("HOLD", repr(str(hold)))) as supervisor:
            said = await supervisor.says()
            await wait_for_file(held)
            await kill_and_look(supervisor, said["zygote"], at_least=3)


async def test_S1_killed_while_a_child_has_not_armed_its_lifeline(make_app: MakeApp) -> None:
    await kill_while_a_fork_hangs(make_app, "after_in_child")


@pytest.mark.more
async def test_S1_killed_while_the_zygote_hangs_in_a_fork(make_app: MakeApp) -> None:
    """It frees itself of that by an alarm of ten seconds: at the same time, before and after the fork."""
    await asyncio.gather(*(kill_while_a_fork_hangs(make_app, where) for where in ("before", "after_in_parent")))


async def test_S1_killed_while_its_zygote_is_stopped(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, Supervisor(stage.app(APP), f"KINDS = ['running']\n{SERVE}") as supervisor:
        zygote: int = (await supervisor.says())["zygote"]
        token = token_of(zygote)
        before = still_alive(token)
        os.kill(zygote, signal.SIGSTOP)
        supervisor.signal(signal.SIGKILL)
        await supervisor.ends()
        await all_gone(token, before)  # nobody continues the zygote but its own lifeline


@pytest.mark.parametrize(
    "hang",
    [
        "ctypes.PyDLL(None).pause()",  # in C, with the GIL
        "time.sleep(1000)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
    ],
)
async def test_S1_killed_while_preload_hangs(make_app: MakeApp, tmp_path: Path, hang: str) -> None:
    marker = tmp_path / "preloading"
    source = f"""
@app.preload
def preload():
    with open({str(marker)!r}, "w") as file:
        file.write(str(os.getpid()))
    {hang}

@app.entrypoint
async def entrypoint(ctx): ...
"""
    async with Supervisor(make_app(source), "await ProcessPool(APP).start()") as supervisor:
        zygote = int(await wait_for_file(marker))
        await eventually(lambda: proc.stat(zygote).state in "ST", "preload that hangs")
        await kill_and_look(supervisor, zygote, at_least=1)


SHARING = """
from multiprocessing.shared_memory import SharedMemory

@app.entrypoint
async def entrypoint(ctx):
    SharedMemory(ctx.job.metadata, create=True, size=100)
    note("at", "sharing", os.getpid())
    await asyncio.Event().wait()
"""


async def test_S1_the_shared_memory_of_its_sessions_is_removed(make_app: MakeApp) -> None:
    """By their resource trackers, which are spared until they have done that: nothing else would ever remove it."""
    blocks = [Path("/dev/shm", f"greenroom-s1-{os.getpid()}-{number}") for number in range(3)]
    serve = f"KINDS = {[block.name for block in blocks]}\n{SERVE}"
    async with Stage(make_app) as stage, Supervisor(stage.app(SHARING), serve) as supervisor:
        said = await supervisor.says()
        await eventually(lambda: len(stage.noted("at")) == 3, "three sessions with shared memory")
        assert all(block.exists() for block in blocks)
        try:
            await kill_and_look(supervisor, said["zygote"], at_least=9)
            assert not [block.name for block in blocks if block.exists()]
        finally:
            for block in blocks:
                block.unlink(missing_ok=True)
