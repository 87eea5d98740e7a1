"""The worker as PID 1, as in a container without an init: in a pid namespace of its own, by the real command."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from faults.stage import PLAIN, Stage
from running_worker import RunningWorker
from support import eventually, kill, wait_for_exit

from greenroom.server.machine.zombie_reaper import OrphanReaper
from greenroom.system import prctl, proc

MakeApp = Callable[[str], str]

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    done = subprocess.run([*UNSHARE, "true"], check=False, capture_output=True) if shutil.which("unshare") else None
    if done is None or done.returncode != 0:
        why = f"no pid namespace can be made here: {done.stderr.decode() if done else 'there is no unshare(1)'}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(f"{why} (that takes root)")


class Container(RunningWorker):
    """``unshare`` starts the worker as PID 1, waits for it, and exits as it did."""

    def __init__(self, app: str, *options: str) -> None:
        # This process is in another pid namespace, where the worker cannot tell it from a session.
        super().__init__(app, "--token", "off", *options, wrapper=tuple(UNSHARE))

    async def __aenter__(self) -> Container:
        await super().__aenter__()
        await eventually(lambda: proc.children(self.pid), "the worker")
        (self.worker,) = proc.children(self.pid)
        return self

    def run(self, script: str) -> asyncio.Future[int]:
        """Run a Python script among its processes, as `docker exec` would; returns its exit code."""
        command = ["nsenter", "--target", str(self.worker), "--pid", "--mount", sys.executable, "-c", script]
        return asyncio.ensure_future(_exit_code(command))

    def zombies(self) -> list[int]:
        return [pid for pid in proc.children(self.worker) if _state(pid) == "Z"]


async def _exit_code(command: list[str]) -> int:
    return await (await asyncio.create_subprocess_exec(*command)).wait()


def _state(pid: int) -> str:
    try:
        return proc.stat(pid).state
    except OSError:
        return ""


async def _namesake(container: Container, name: str) -> int:
    """The pid of a child of the worker that calls itself this."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = [pid for pid in proc.children(container.worker) if _comm(pid) == name]
        return bool(found)

    await eventually(is_there, f"orphan {name}")
    return found[0]


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


DAEMON = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("/proc/self/comm", "w").write("a-daemon")
        signal.pause()
    os._exit(0)
os.wait()
"""


async def test_an_orphan_is_left_alone_and_reaped_when_it_dies(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, Container(stage.app(), "--num-idle-processes", "2") as container:
        job = await container.start("stay")
        visit = await stage.next("job")
        assert await container.run(DAEMON) == 0
        daemon = await _namesake(container, "a-daemon")

        # The zygote's loss passes on all of its children, and sweeps: the daemon is none of the pool's business.
        zygote = next(pid for pid in proc.children(container.worker) if _comm(pid) == "gr:zygote")
        kill(zygote)
        await container.logs("was lost")
        await container.until("/v1/pool", lambda answer: answer.body["ready"])
        assert _comm(daemon) == "a-daemon"

        pidfd = os.pidfd_open(daemon)
        kill(daemon)
        await wait_for_exit(pidfd)
        await eventually(lambda: daemon not in proc.children(container.worker), "the orphan reaped")
        visit.order("leave")
        report = await container.report(job["id"])
        assert (report["reason"], report["exit_code"]) == ("completed", 0)
        await eventually(lambda: not container.zombies(), "no zombie")

        os.kill(container.worker, signal.SIGTERM)
        assert await container.ends() == 0


async def test_signals_reach_pid_1(make_app: MakeApp) -> None:
    """SIGTERM drains, SIGHUP reloads; a second SIGTERM ends at once, with the code that says so."""
    async with Stage(make_app) as stage, Container(stage.app(), "--num-idle-processes", "1") as container:
        await container.start("stay")
        visit = await stage.next("job")
        os.kill(container.worker, signal.SIGHUP)
        await container.logs("reloaded: generation 2")
        os.kill(container.worker, signal.SIGTERM)
        await container.logs("draining: 1 jobs")
        os.kill(container.worker, signal.SIGTERM)
        assert await container.ends() == 128 + signal.SIGTERM
        await visit.left()


async def test_a_signal_while_pid_1_loads_the_app(make_app: MakeApp) -> None:
    held = f"@app.preload\ndef preload():\n    block_on_stage('preload')\n{PLAIN}"
    async with Stage(make_app) as stage, Container(stage.app(held)) as container:
        visit = await stage.next("preload")
        os.kill(container.worker, signal.SIGTERM)
        assert await container.ends() == 0
        await visit.left()


async def test_pid_1_killed_leaves_nothing(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, Container(stage.app(), "--num-idle-processes", "1") as container:
        await container.start("stay")
        visit = await stage.next("job")
        os.kill(container.worker, signal.SIGKILL)
        await visit.left()
        await container.ends()  # that nothing is left is proven there; the code is of unshare's making


@asynccontextmanager
async def _reaping(owned: Callable[[int], bool]) -> AsyncIterator[None]:
    prctl.set_child_subreaper()
    with OrphanReaper(owned).watching():
        yield


async def test_whoever_waits_for_a_child_gets_its_status() -> None:
    """asyncio's subprocesses, those of the pool, and one that is waited for as it dies."""
    ends = [sys.executable, "-c", "raise SystemExit(len(input()))"]
    pipe = asyncio.subprocess.PIPE
    owned = subprocess.Popen(ends, stdin=subprocess.PIPE)
    async with _reaping(lambda pid: pid == owned.pid):
        of_loop = [await asyncio.create_subprocess_exec(*ends, stdin=pipe) for _ in range(3)]
        held = subprocess.Popen(ends, stdin=subprocess.PIPE)
        pidfd = os.pidfd_open(held.pid)
        orphans = await _orphans(3)
        for process in (owned, held):
            assert process.stdin is not None
            process.stdin.write(b"1234\n")
            process.stdin.close()
        for child in of_loop:
            await child.communicate(b"12\n")
        for pid in orphans:
            kill(pid)
        await eventually(lambda: not set(orphans) & set(proc.children(os.getpid())), "the orphans reaped")
        assert [child.returncode for child in of_loop] == [2, 2, 2]
        assert _state(owned.pid) == _state(held.pid) == "Z", "they are for whoever holds them to reap"
    os.close(pidfd)
    assert (owned.wait(), held.wait()) == (4, 4)


async def _orphans(count: int) -> list[int]:
    """Daemons of a process that has ended, now children of this one."""
    script = f"""
import json, os, signal
pids = []
for _ in range({count}):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(1)
        signal.pause()
    pids.append(pid)
print(json.dumps(pids))
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    pids: list[int] = json.loads(out)
    await eventually(lambda: set(pids) <= set(proc.children(os.getpid())), "orphans adopted")
    return pids
