"""S13: nothing escapes. Supervisor and zygote are killed in one moment, and what a session has started ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from outside import Supervisor, reap, reapers
from stage import Stage
from support import eventually, is_gone, kill

from greenroom import ProcessPool
from greenroom.system import proc

MakeApp = Callable[[str], str]

APP = """
import subprocess
from multiprocessing import shared_memory

FOR_EVER = ["/bin/sleep", "100000"]

def daemon(env):
    if os.fork():
        return os.wait()
    os.setsid()
    if os.fork():
        os._exit(0)
    note("left", os.getpid())
    os.execve(FOR_EVER[0], FOR_EVER, env)

def ignoring():
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note("left", os.getpid())
        while True: signal.pause()

def block():
    global kept
    kept = shared_memory.SharedMemory(create=True, size=100)
    note("block", kept.name)

WAYS = {
    "grandchild": lambda: note("left", subprocess.Popen(FOR_EVER).pid),
    "session": lambda: note("left", subprocess.Popen(FOR_EVER, start_new_session=True).pid),
    "daemon": lambda: daemon(dict(os.environ)),
    "bare daemon": lambda: daemon({}),
    "ignoring": ignoring,
    "block": block,
}

@app.entrypoint
async def entrypoint(ctx):
    for way in ctx.job.metadata:
        if way == "exec":
            note("left", os.getpid())
            os.execv(FOR_EVER[0], FOR_EVER)
        WAYS[way]()
    note("left", os.getpid())
    await asyncio.Event().wait()
"""

SERVE = """
async with ProcessPool(APP, num_idle_processes=1, start_method=METHOD) as pool:
    for kind in KINDS:
        await pool.launch(kind)
    say(zygote=pool.stats().zygote_pid)
    await told()
    await asyncio.Event().wait()
"""

ALL = ["grandchild", "session", "daemon", "bare daemon", "ignoring", "block"]


def script(method: str, kinds: list[list[str]]) -> str:
    return f"METHOD, KINDS = {method!r}, {kinds!r}\n{SERVE}"


async def left_by(stage: Stage, count: int) -> set[int]:
    """The processes that sessions have noted, once they are that many and have executed what they were to."""
    await eventually(lambda: len(stage.noted("left")) == count, f"{count} processes")
    return {int(pid) for (pid,) in stage.noted("left")}


async def executed(pids: set[int], count: int) -> None:
    def are_there() -> bool:
        return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids].count("sleep") == count

    await eventually(are_there, "programs that sessions execute")


def kill_at_once(*pids: int | None) -> None:
    """None of them can act upon the death of another."""
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            if pid is not None:
                kill(pid, signum)


async def assert_gone(supervisor: Supervisor, pids: set[int]) -> None:
    await supervisor.ends()
    await eventually(lambda: not reap(pids), f"the end of {[pid for pid in pids if not is_gone(pid)]}")


@pytest.mark.parametrize("method", ["zygote", "spawn"])
async def test_S13_killed_in_one_moment(make_app: MakeApp, method: str) -> None:
    async with (
        Stage(make_app) as stage,
        Supervisor(stage.app(APP), script(method, [["exec"], ALL])) as supervisor,
    ):
        zygote = (await supervisor.says())["zygote"]
        left = await left_by(stage, 7)
        await executed(left, 5)
        supervisor.note_below()
        kill_at_once(supervisor.pid, zygote)
        await assert_gone(supervisor, left | ({zygote} if zygote else set()))
        [[block]] = stage.noted("block")
        await eventually(lambda: not Path("/dev/shm", block).exists(), "the end of shared memory")


@pytest.mark.parametrize("method", ["zygote", "spawn"])
async def test_S13_killed_in_one_moment_with_the_reaper(make_app: MakeApp, method: str) -> None:
    """The kernel ends the sessions, whatever they execute, and what is in their groups and does not ignore SIGTERM."""
    async with (
        Stage(make_app) as stage,
        Supervisor(stage.app(APP), script(method, [["exec"], ["grandchild"]])) as supervisor,
    ):
        zygote = (await supervisor.says())["zygote"]
        left = await left_by(stage, 3)
        await executed(left, 2)
        [reaper] = reapers(supervisor.pid)
        supervisor.note_below()
        kill_at_once(supervisor.pid, zygote, reaper)
        await assert_gone(supervisor, left | {reaper} | ({zygote} if zygote else set()))


async def test_S13_killed_after_its_reaper_and_zygote_were_lost_and_replaced(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        Supervisor(stage.app(APP), script("zygote", [["session", "bare daemon"]])) as supervisor,
    ):
        zygote = (await supervisor.says())["zygote"]
        left = await left_by(stage, 3)
        [reaper] = reapers(supervisor.pid)
        kill(reaper)
        kill(zygote)

        def successors() -> set[int]:
            children = {pid for pid in proc.children(supervisor.pid) if _name(pid) in ("gr:zygote", "gr:reaper")}
            return children - {zygote, reaper}

        await eventually(lambda: len(successors()) == 2, "another zygote, and another reaper")
        assert is_gone(reaper)
        supervisor.note_below()
        kill_at_once(supervisor.pid, *(found := successors()) - set(reapers(supervisor.pid)))
        await assert_gone(supervisor, left | found)


async def test_S13_killed_while_the_reaper_is_stopped(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        Supervisor(stage.app(APP), script("spawn", [["session"]])) as supervisor,
    ):
        await supervisor.says()
        left = await left_by(stage, 2)
        [reaper] = reapers(supervisor.pid)
        await eventually(lambda: _name(reaper) == "gr:reaper", "a reaper that waits")
        supervisor.note_below()
        kill(reaper, signal.SIGSTOP)
        supervisor.signal(signal.SIGKILL)
        await assert_gone(supervisor, left | {reaper})  # nobody continues it but its lifeline


async def test_S13_a_signal_to_the_whole_worker_does_not_end_the_reaper(make_app: MakeApp) -> None:
    async with ProcessPool(make_app("@app.entrypoint\nasync def entrypoint(ctx): ..."), num_idle_processes=1) as pool:
        [reaper] = reapers(os.getpid())
        await eventually(lambda: _name(reaper) == "gr:reaper", "a reaper that waits")
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            kill(reaper, signum)
        assert (await (await pool.launch()).wait()).reason == "completed"
        assert reapers(os.getpid()) == [reaper]
        assert proc.stat(reaper).state != "Z"
    assert is_gone(reaper)


async def test_S13_killed_in_one_moment_as_another_user(make_app: MakeApp) -> None:
    """The reaper and the lifelines need no privileges. One is left: an interpreter in /root is to be read."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("these tests run without privileges already, or there is no setpriv")
    kept = "-all,+dac_read_search"
    caps = (f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}")
    wrapper = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *caps)
    async with Stage(make_app) as stage:
        stage.directory.chmod(0o777)
        async with Supervisor(stage.app(APP), script("zygote", [["exec"], [*ALL[:-1]]]), wrapper=wrapper) as supervisor:
            zygote = (await supervisor.says())["zygote"]
            left = await left_by(stage, 7)
            await executed(left, 5)
            supervisor.note_below()
            kill_at_once(supervisor.pid, zygote)
            await assert_gone(supervisor, left | {zygote})


async def test_S13_killed_in_one_moment_in_a_container_of_its_own_user_namespace(make_app: MakeApp) -> None:
    wrapper = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")
    trial = subprocess.run([*wrapper, "exit 7"], capture_output=True, check=False, text=True)
    if trial.returncode != 7:
        pytest.skip(f"no user and pid namespace can be made here: {trial.stderr.strip()}")
    # The first process of the namespace goes on, as the init of a container does; what is below it has to end alone.
    wrapper = (*wrapper, '"$0" "$@" & exec tail -f /dev/null')
    async with (
        Stage(make_app) as stage,
        Supervisor(stage.app(APP), script("zygote", [["exec"], [*ALL[:-1]]]), wrapper=wrapper) as container,
    ):
        await container.says()
        await left_by(stage, 7)
        [init] = proc.children(container.pid)
        [supervisor] = [pid for pid in proc.children(init) if _name(pid).startswith("python")]
        [zygote] = [pid for pid in proc.children(supervisor) if _name(pid) == "gr:zygote"]
        kill_at_once(supervisor, zygote)
        await eventually(lambda: not _others(init), "an empty container")


def _others(init: int) -> list[str]:
    """The names of what lives in a container beside its first process."""
    namespace = os.readlink(f"/proc/{init}/ns/pid")
    found = []
    for pid in proc.pids():
        try:
            is_inside = pid != init and os.readlink(f"/proc/{pid}/ns/pid") == namespace
            found += [_name(pid)] if is_inside and proc.stat(pid).state != "Z" else []
        except OSError:  # gone
            continue
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # gone
        return ""
