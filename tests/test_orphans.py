"""What sessions leave to the supervisor, where there is no zygote: thousands do not hold its event loop."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import eventually, is_gone

from greenroom import ProcessPool
from greenroom.pool.shell.orphans import OrphanKiller
from greenroom.system import mark, prctl, proc

MANY = 500


@pytest.fixture
def token() -> Iterator[str]:
    prctl.set_child_subreaper()
    yield secrets.token_hex(8)
    prctl.set_child_subreaper(False)


def left(token: str) -> list[int]:
    return [pid for pid in proc.children(os.getpid()) if mark.is_on(pid, token)]


async def leave_many(token: str) -> OrphanKiller:
    script = f"import os\nfor _ in range({MANY}):\n    os.fork() or os._exit(0)"
    subprocess.run([sys.executable, "-SEc", script], preexec_fn=lambda: mark.put(token, os.getpid()), check=True)
    await eventually(lambda: [proc.stat(pid).state for pid in left(token)] == ["Z"] * MANY, "many zombies")
    return OrphanKiller(token, set, set)


async def test_dead_strays_are_reaped_by_turns(token: str) -> None:
    orphans = await leave_many(token)
    assert not orphans.reap_dead()
    assert 0 < len(left(token)) < MANY
    await eventually(orphans.reap_dead, "a look at all of them")
    assert not left(token)


async def test_strays_are_ended_by_turns(token: str) -> None:
    orphans = await leave_many(token)
    is_done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    orphans.sweep(is_done.set_result)
    assert 0 < len(left(token)) < MANY
    assert await is_done == 0  # that had to be killed
    assert not left(token)


async def test_an_orphan_that_dies_late_is_reaped_though_its_environment_is_gone(token: str) -> None:
    """Its limit is set to something else: while it lives its environment tells whose it is, and a zombie has none."""
    shed = "import resource as r; r.setrlimit(r.RLIMIT_RTTIME, (5_000_000, r.RLIM_INFINITY)); "
    script = (
        shed
        + "import os, time; pid = os.fork(); pid and print(pid, flush=True); pid or (os.close(1), time.sleep(1000))"
    )
    environment = {**os.environ, mark.VARIABLE: token, mark.OWNER_VARIABLE: f"{token}:1"}
    command = [sys.executable, "-SEc", script]
    orphan = int(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)
    orphans = OrphanKiller(token, set, set)
    await eventually(orphans.reap_dead, "a look at all of them")
    assert proc.stat(orphan).state in "RS"  # it may be on its way into its sleep
    os.kill(orphan, signal.SIGKILL)
    await eventually(lambda: orphans.reap_dead() and is_gone(orphan), "the end of the orphan")


async def test_a_child_of_the_program_s_own_keeps_its_status(token: str) -> None:
    orphans = OrphanKiller(token, set, set)
    child = subprocess.Popen([sys.executable, "-SEc", "raise SystemExit(7)"])
    await eventually(lambda: proc.stat(child.pid).state == "Z", "the end of a child")
    for _ in range(3):
        await eventually(orphans.reap_dead, "a look at all of them")
    assert child.wait() == 7


async def test_each_fork_of_a_process_without_a_zygote_is_known_as_the_pools(
    make_app: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial of the walls forks before the app is loaded. If the process dies meanwhile, the fork is an orphan."""
    note = f"""
import os, resource
def note():
    with open({str(tmp_path / "limits")!r}, "a") as file:
        print(os.getpid(), resource.getrlimit(resource.RLIMIT_RTTIME)[0], file=file)
os.register_at_fork(before=note)
"""
    (tmp_path / "sitecustomize.py").write_text(note)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    async with ProcessPool(
        make_app("@app.entrypoint\nasync def entrypoint(ctx): ..."), num_idle_processes=1, start_method="spawn"
    ) as pool:
        report = await (await pool.launch()).wait()
    noted = [line.split() for line in (tmp_path / "limits").read_text().splitlines()]
    limits = {int(limit) for pid, limit in noted if int(pid) == report.pid}
    assert limits
    assert all(limit >= 1 << 62 for limit in limits)  # -1 is none at all
