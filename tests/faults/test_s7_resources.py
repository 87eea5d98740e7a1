"""S7: no fds, no processes, no memory, no disk for the log, no ``/dev/shm``: what cannot be had is
reported, what runs goes on, and when there is enough again the pool is as before."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from outside import Supervisor
from scarce_pids import pids_cgroup
from stage import Stage, Visit, assert_recovered
from support import eventually, zygote_pid

from greenroom import ExitReport, JobHandle, PrewarmError, ProcessPool

MakeApp = Callable[[str], str]

APP = """
@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    if ctx.job.metadata == "quick":
        print("a line", flush=True)
        return "done"
    order = await on_stage("job", ctx.job.id)
    if order == "eat":
        eaten = bytearray(os.urandom(2**20)) * 400
        await asyncio.Event().wait()
    os._exit(int(order))
"""


def pool_of(app: str) -> ProcessPool:
    return ProcessPool(app, num_idle_processes=2, max_idle_processes=2, idle_ttl=0.1)


async def ends_with_7(job: JobHandle, visit: Visit) -> None:
    visit.order("7")
    report: ExitReport = await job.wait()
    assert (report.outcome, report.reason, report.exit_code) == ("failed", "exited", 7)


# --- file descriptors ------------------------------------------------------------------------------

HOG = """
def hog(leave):
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    for _ in range(leave):
        os.close(taken.pop())
    return taken

def release(taken):
    for fd in taken:
        os.close(fd)

resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
"""

OUT_OF_FDS = f"""{HOG}
async with ProcessPool(APP, num_idle_processes=2, max_idle_processes=2, idle_ttl=0.1) as pool:
    job = await pool.launch("stay")
    await eventually(lambda: pool.stats().idle == 2 == len(pool.processes) - 1)
    before = fds()
    for leave in (0, 1, 4, 7, 10) if KILL else range(15):  # zygotes are replaced at a bounded rate
        taken = hog(leave)
        quick = [await pool.launch("quick") for _ in range(2)]
        if KILL:
            os.kill(lost := zygote_pid(pool), signal.SIGKILL)
            await eventually(lambda: pool.stats().zygote_pid != lost)
        ends = [await each.wait() for each in quick]
        assert [end.reason for end in ends] == ["completed"] * 2, (leave, ends)
        await eventually(lambda: pool.stats().breaker_cause or pool.stats().idle == 2, f"outcome with {{leave}}")
        if leave == 0 and not KILL:
            assert "open files" in pool.stats().breaker_cause, pool.stats()
        release(taken)
        await eventually(lambda: pool.stats().ready and pool.stats().idle == 2, f"recovery of {{leave}}")
        await eventually(lambda: pool.stats().zygote_pid is not None, f"a zygote after {{leave}}")
        await eventually(lambda: pool.stats().warming == 0 and len(pool.processes) == 3)
        # What reaps the last of the old processes has an fd open for a moment.
        await eventually(lambda: len(fds()) == len(before), f"as many fds as before {{leave}}")
    say(finished=True)
    end = await job.wait()
    say(reason=end.reason, exit_code=end.exit_code)
"""


@pytest.mark.parametrize("zygote_is_killed", [False, True])
async def test_S7_no_fds_in_the_supervisor(make_app: MakeApp, zygote_is_killed: bool) -> None:
    """With every number of fds left, so that each of the things that need one fails once."""
    async with Stage(make_app) as stage:
        script = f"KILL = {zygote_is_killed}\n{OUT_OF_FDS}"
        async with Supervisor(stage.app(APP), script) as supervisor:
            visit = await stage.next("job")
            assert await supervisor.says() == {"finished": True}
            visit.order("7")
            assert await supervisor.says() == {"reason": "exited", "exit_code": 7}
            assert await supervisor.ends() == 0
            assert set(stage.starts().values()) == {1}


@pytest.mark.more
async def test_S7_no_fds_to_start_with(make_app: MakeApp) -> None:
    script = f"""{HOG}
before = fds()
for leave in range(24):
    taken = hog(leave)
    pool = ProcessPool(APP, num_idle_processes=1)
    try:
        await pool.start()
    except (AppLoadError, OSError):
        pass
    release(taken)
    await pool.aclose()
    # Nothing that was begun is left.
    children = Path(f"/proc/self/task/{{os.getpid()}}/children")
    await eventually(lambda: not children.read_text(), f"{{leave}}: no process")
    await eventually(lambda: len(fds()) == len(before), f"as many fds as before {{leave}}")
async with ProcessPool(APP, num_idle_processes=1) as pool:
    say(reason=(await (await pool.launch("quick")).wait()).reason)
"""
    async with Stage(make_app) as stage, Supervisor(stage.app(APP), script) as supervisor:
        assert await supervisor.says() == {"reason": "completed"}
        assert await supervisor.ends() == 0


async def test_S7_no_fds_does_not_switch_the_memory_limit_off(make_app: MakeApp) -> None:
    script = f"""{HOG}
async with ProcessPool(APP, num_idle_processes=1, memory_limit_mb=200) as pool:
    job = await pool.launch("stay")
    taken = hog(0)
    begin = time.monotonic()
    await eventually(lambda: time.monotonic() - begin > 2.5, "some looks at the memory")
    release(taken)
    say(ready=True)
    say(reason=(await job.wait()).reason)
"""
    async with Stage(make_app) as stage, Supervisor(stage.app(APP), script) as supervisor:
        visit = await stage.next("job")
        assert await supervisor.says() == {"ready": True}
        visit.order("eat")
        assert await supervisor.says() == {"reason": "memory_limit"}
        assert await supervisor.ends() == 0


def lasting_fds(pid: int) -> list[str]:
    """Return what a process has open, without what it opens for a moment: to look into /proc, or to pass a pidfd on."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # closed since
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if not target.startswith("/proc/") and "[pidfd]" not in target:
                found.append(target)
    return found


@contextmanager
def limited(pid: int, what: int, soft: int) -> Iterator[None]:
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


async def test_S7_no_fds_in_the_zygote(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
        job = await pool.launch("stay")
        visit = await stage.next("job")
        await eventually(lambda: pool.stats().idle == 2)
        zygote = zygote_pid(pool)
        in_use = len(lasting_fds(zygote))
        for more in range(10):
            with limited(zygote, resource.RLIMIT_NOFILE, in_use + more):
                assert (await (await pool.launch("quick")).wait()).result == "done"
                back = lambda: pool.stats().breaker_cause or pool.stats().idle == 2  # noqa: E731
                await eventually(back, f"outcome with {more}")
                if more == 0:
                    assert "file descriptors" in str(pool.stats().breaker_cause)
            await eventually(lambda: pool.stats().idle == 2 and not pool.stats().warming, f"recovery of {more}")
            assert zygote_pid(pool) == zygote, "it should have survived that"
            await eventually(lambda: len(lasting_fds(zygote)) == in_use, f"fds given back after {more}")
        await ends_with_7(job, visit)
        await assert_recovered(pool, 2)


HELD = """
@app.preload
def preload():
    if os.path.exists({hold!r}):
        open({here!r}, "w").close()
        while os.path.exists({hold!r}):
            time.sleep(0.005)

@app.entrypoint
async def entrypoint(ctx):
    return "done"
"""


async def test_S7_no_fds_for_the_processes_of_a_reload(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first one that cannot be made ends the reload, and with it the others, which were never made either."""
    hold, here = tmp_path / "hold", tmp_path / "here"
    app = make_app(HELD.format(hold=str(hold), here=str(here)))
    async with ProcessPool(app, num_idle_processes=4, max_idle_processes=4) as pool:
        hold.touch()
        reloading = asyncio.create_task(pool.reload())
        await eventually(here.exists, "preload of the new code")
        with limited(os.getpid(), resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) - 1):
            hold.unlink()
            with pytest.raises(PrewarmError, match="Too many open files"):
                await reloading
        assert "failed to perform" not in caplog.text
        assert (await (await pool.launch()).wait()).result == "done"
        await eventually(lambda: pool.stats().idle == 4, "recovery")


# --- processes -------------------------------------------------------------------------------------


async def test_S7_no_processes_for_the_zygote(make_app: MakeApp) -> None:
    with pids_cgroup() as group:
        async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
            job = await pool.launch("stay")
            visit = await stage.next("job")
            await eventually(lambda: pool.stats().idle == 2)
            zygote = zygote_pid(pool)
            (group / "cgroup.procs").write_text(str(zygote))
            (group / "pids.max").write_text("1")
            assert (await (await pool.launch("quick")).wait()).result == "done"
            assert (await (await pool.launch("quick")).wait()).result == "done"
            await eventually(lambda: pool.stats().breaker_cause, "cause")
            assert "fork: [Errno 11]" in str(pool.stats().breaker_cause)
            assert "pids.max" in str(pool.stats().breaker_cause)
            (group / "pids.max").write_text("max")
            await eventually(lambda: pool.stats().idle == 2 and not pool.stats().warming, "recovery")
            assert zygote_pid(pool) == zygote
            await ends_with_7(job, visit)
            await assert_recovered(pool, 2)


async def test_S7_no_processes_for_the_supervisor(make_app: MakeApp) -> None:
    script = """
group = Path(GROUP)
async with ProcessPool(APP, num_idle_processes=2, max_idle_processes=2, idle_ttl=0.1) as pool:
    job = await pool.launch("stay")
    await eventually(lambda: pool.stats().idle == 2)
    (group / "cgroup.procs").write_text(str(os.getpid()))
    (group / "pids.max").write_text("1")
    refused = ProcessPool(APP)
    try:
        await refused.start()
    except AppLoadError as error:
        assert "could not be started" in str(error), error
    os.kill(zygote_pid(pool), signal.SIGKILL)
    await eventually(lambda: "could not be started" in str(pool.stats().breaker_cause))
    # What is warm serves.
    assert (await (await pool.launch("quick")).wait()).reason == "completed"
    (group / "pids.max").write_text("max")
    await eventually(lambda: pool.stats().ready and pool.stats().idle == 2 and len(pool.processes) == 3)
    say(recovered=True)
    end = await job.wait()
    say(reason=end.reason, exit_code=end.exit_code)
"""
    with pids_cgroup() as group:
        script = f"GROUP = {str(group)!r}\n{script}"
        async with Stage(make_app) as stage, Supervisor(stage.app(APP), script) as supervisor:
            visit = await stage.next("job")
            assert await supervisor.says() == {"recovered": True}
            visit.order("7")
            assert await supervisor.says() == {"reason": "exited", "exit_code": 7}
            assert await supervisor.ends() == 0


# --- memory ----------------------------------------------------------------------------------------


async def test_S7_no_memory_for_new_processes(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, pool_of(stage.app(APP)) as pool:
        job = await pool.launch("stay")
        visit = await stage.next("job")
        await eventually(lambda: pool.stats().idle == 2)
        zygote = zygote_pid(pool)
        size = int(Path(f"/proc/{zygote}/statm").read_text().split()[0]) * resource.getpagesize()
        # What is forked from now on has no room for the stack of a thread.
        resource.prlimit(zygote, resource.RLIMIT_AS, (size + 2**20, resource.RLIM_INFINITY))
        assert (await (await pool.launch("quick")).wait()).result == "done"
        await eventually(lambda: pool.stats().breaker_cause, "cause")
        resource.prlimit(zygote, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await eventually(lambda: pool.stats().idle == 2 and not pool.stats().warming, "recovery")
        await ends_with_7(job, visit)
        await assert_recovered(pool, 2)


# --- disk and shared memory ------------------------------------------------------------------------

SERVE = """
async with ProcessPool(APP, num_idle_processes=2) as pool:
    ends = [await (await pool.launch("quick")).wait() for _ in range(10)]
    os.kill(lost := zygote_pid(pool), signal.SIGKILL)
    await eventually(lambda: pool.stats().zygote_pid not in (None, lost))
    ends += [await (await pool.launch("quick")).wait() for _ in range(10)]
    say(reasons=[end.reason for end in ends])
"""


async def test_S7_no_disk_for_the_log(make_app: MakeApp) -> None:
    full = """
full = open("/dev/full", "w")
os.dup2(full.fileno(), 2)
logging.basicConfig(level=logging.DEBUG, handlers=[logging.StreamHandler(full), logging.FileHandler("/dev/full")])
"""
    async with Stage(make_app) as stage, Supervisor(stage.app(APP), full + SERVE) as supervisor:
        assert await supervisor.says() == {"reasons": ["completed"] * 20}


@pytest.mark.parametrize(
    "mount", ["mount -t tmpfs -o ro,size=4k none /dev/shm", "mount --bind /proc/self/fdinfo /dev/shm"]
)
async def test_S7_no_dev_shm(make_app: MakeApp, mount: str) -> None:
    command = ("unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode != 0:
        pytest.skip("no mount namespace can be made here (that takes root)")
    prove = """
with suppress(OSError):
    Path("/dev/shm/greenroom-test").touch()
    raise AssertionError("/dev/shm can be written to")
"""
    async with Stage(make_app) as stage, Supervisor(stage.app(APP), prove + SERVE, wrapper=command) as supervisor:
        assert await supervisor.says() == {"reasons": ["completed"] * 20}
        assert await supervisor.ends() == 0
