"""S9: a pid can be another's by now; and the supervisor may have children of its own, which are not ours."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from outside import Supervisor
from stage import PLAIN, Stage, assert_recovered
from support import eventually, kill, zygote_pid

from greenroom import ProcessPool
from greenroom.system import proc

MakeApp = Callable[[str], str]


async def test_S9_foreign_children_keep_their_exit_status(make_app: MakeApp) -> None:
    """While zygotes are killed, jobs leave things behind, and pools come and go."""
    leave = f"import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\n{PLAIN}"
    ends_now = [sys.executable, "-c", "raise SystemExit(3)"]
    ends_when_told = [sys.executable, "-c", "raise SystemExit(len(input()))"]
    async with Stage(make_app) as stage:
        dead = subprocess.Popen(ends_now)
        async with ProcessPool(stage.app(leave), num_idle_processes=2, idle_ttl=0.1) as pool:
            told = subprocess.Popen(ends_when_told, stdin=subprocess.PIPE, start_new_session=True)
            loop_owned = await asyncio.create_subprocess_exec(*ends_when_told, stdin=subprocess.PIPE)
            await eventually(lambda: proc.stat(dead.pid).state == "Z", "foreign zombie")
            for _ in range(3):
                job = await pool.launch("stay")
                visit = await stage.next("job")
                kill(lost := zygote_pid(pool))
                await eventually(lambda lost=lost: pool.stats().zygote_pid not in (None, lost))  # type: ignore[misc]
                visit.order("leave")
                assert (await job.wait()).reason == "completed"
            await assert_recovered(pool, 2)
            assert proc.stat(dead.pid).state == "Z", "it is for whoever started it to reap"
        async with ProcessPool(stage.app(), num_idle_processes=1) as pool:
            assert (await (await pool.launch()).wait()).reason == "completed"
            assert loop_owned.stdin is not None
            loop_owned.stdin.write(b"12345\n")
            assert await loop_owned.wait() == 5
        assert dead.wait() == 3
        told.communicate(b"1234567\n")
        assert told.returncode == 7


# In a pid namespace of its own nobody else forks, so the next pid can be chosen.
REUSE = """
import ctypes

def take_over(pid):
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    foreign = subprocess.Popen([sys.executable, "-c", "raise SystemExit(len(input()))"], stdin=subprocess.PIPE)
    assert foreign.pid == pid, (foreign.pid, pid)
    return foreign

def block_until(condition):
    # Without the event loop: the pool must not hear of anything meanwhile.
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up

def is_dead(pid):
    return is_gone(pid) or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

async with ProcessPool(APP, num_idle_processes=1, idle_ttl=0.1) as pool:
    await eventually(lambda: pool.stats().idle == 1)
    job = await pool.launch("stay")
    await eventually(lambda: pool.stats().idle == 1 and not pool.stats().warming)
    idle, zygote, pid = idle_pids(pool)[0], zygote_pid(pool), job.pid

    # The job's process dies and is reaped; before the pool hears of it, its pid is another's.
    os.kill(pid, signal.SIGKILL)
    block_until(lambda: is_gone(pid))
    foreign = take_over(pid)
    job.cancel("too late")
    if LOSE_ZYGOTE:
        os.kill(zygote, signal.SIGKILL)
        block_until(lambda: is_dead(zygote))
    end = await job.wait()
    assert (end.reason, end.signal) == ("signaled", signal.SIGKILL), end

    # The same with an idle process, which the next launch must not take for alive.
    if LOSE_ZYGOTE:
        os.kill(idle, signal.SIGKILL)  # its parent is this process now, which would have to reap it in between
        await eventually(lambda: idle not in idle_pids(pool), "end of the one that had lost its parent")
    await assert_recovered(pool, 1)
    idle = idle_pids(pool)[0]
    os.kill(idle, signal.SIGKILL)
    block_until(lambda: is_gone(idle))
    second = take_over(idle)
    assert (await (await pool.launch()).wait()).reason == "completed"
    await assert_recovered(pool, 1)
    for each, word in ((foreign, b"1234567\\n"), (second, b"123\\n")):
        assert each.poll() is None
        each.communicate(word)
    say(foreign=foreign.returncode, second=second.returncode)
"""


@pytest.mark.parametrize("zygote_is_lost", [False, True])
async def test_S9_a_pid_is_reused(make_app: MakeApp, zygote_is_lost: bool) -> None:
    command = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    probe = ("sh", "-c", "echo 99 > /proc/sys/kernel/ns_last_pid")
    if shutil.which("unshare") is None or subprocess.run([*command, *probe], check=False).returncode != 0:
        pytest.skip("no pid namespace can be made here (that takes root)")
    script = f"LOSE_ZYGOTE = {zygote_is_lost}\n{REUSE}"
    async with Stage(make_app) as stage, Supervisor(stage.app(), script, wrapper=command) as supervisor:
        assert await supervisor.says() == {"foreign": 7, "second": 3}
        assert await supervisor.ends() == 0
