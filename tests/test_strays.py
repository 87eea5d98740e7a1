"""What sessions leave to the supervisor, where there is no zygote: thousands of processes do not hold its event loop."""

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


def left() -> list[int]:
    return proc.children(os.getpid())


@pytest.fixture
def others() -> Iterator[set[int]]:
    prctl.set_child_subreaper()
    yield set(left())
    prctl.set_child_subreaper(False)


async def leave_many(token: str) -> None:
    script = f"import os\nfor _ in range({MANY}):\n    os.fork() or os._exit(0)"
    subprocess.run([sys.executable, "-SEc", script], preexec_fn=lambda: mark.put(token, os.getpid()), check=True)
    await eventually(lambda: [proc.stat(pid).state for pid in left()] == ["Z"] * MANY, "many zombies")


async def test_dead_strays_are_reaped_by_turns(others: set[int]) -> None:
    assert not others
    strays = StrayKiller(token := secrets.token_hex(8), set, set)
    await leave_many(token)
    assert not strays.reap_dead()
    assert 0 < len(left()) < MANY
    await eventually(strays.reap_dead, "a look at all of them")
    assert not left()


async def test_strays_are_ended_by_turns(others: set[int]) -> None:
    assert not others
    strays = StrayKiller(token := secrets.token_hex(8), set, set)
    await leave_many(token)
    is_done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    strays.sweep(is_done.set_result)
    assert 0 < len(left()) < MANY
    assert await is_done == 0  # that had to be killed
    assert not left()
