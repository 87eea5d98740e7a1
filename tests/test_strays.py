"""What sessions leave to the supervisor, where there is no zygote: thousands do not hold its event loop."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support import eventually

from greenroom.pool.strays import StrayKiller
from greenroom.system import mark, prctl, proc

MANY = 500


@pytest.fixture
def token() -> Iterator[str]:
    prctl.set_child_subreaper()
    yield secrets.token_hex(8)
    prctl.set_child_subreaper(False)


def left(token: str) -> list[int]:
    return [pid for pid in proc.children(os.getpid()) if mark.is_on(pid, token)]


async def leave_many(token: str) -> StrayKiller:
    script = f"import os\nfor _ in range({MANY}):\n    os.fork() or os._exit(0)"
    subprocess.run([sys.executable, "-SEc", script], preexec_fn=lambda: mark.put(token, os.getpid()), check=True)
    await eventually(lambda: [proc.stat(pid).state for pid in left(token)] == ["Z"] * MANY, "many zombies")
    return StrayKiller(token, set, set)


async def test_dead_strays_are_reaped_by_turns(token: str) -> None:
    strays = await leave_many(token)
    assert not strays.reap_dead()
    assert 0 < len(left(token)) < MANY
    await eventually(strays.reap_dead, "a look at all of them")
    assert not left(token)


async def test_strays_are_ended_by_turns(token: str) -> None:
    strays = await leave_many(token)
    is_done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    strays.sweep(is_done.set_result)
    assert 0 < len(left(token)) < MANY
    assert await is_done == 0  # that had to be killed
    assert not left(token)
