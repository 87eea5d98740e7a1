"""Memory in huge pages: full memory moves, memory with holes does not grow, and the budget holds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support import DEADLINE

from greenroom import OptionError, PoolOptions, ProcessPool
from greenroom.pool.events import Event, ZygoteStarted
from greenroom.system import huge_pages, proc

OBSTACLE = huge_pages.arrange(1.0).problem
"""Reason why this machine has no huge pages, or an empty text. Where there is a reason, it is what the tests expect."""

PROGRAM = """
import json, mmap, sys
from greenroom.system import huge_pages

def smaps(name):
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith(name)) / 1024

def memory(touched):
    made = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for place in range(0, len(made), touched):
        made[place] = 1
    return made

full, sparse = memory(4096), memory(1 << 21)
read = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
assert sum(read[place] for place in range(0, len(read), 4096)) == 0
if json.loads(sys.argv[2]):
    full.madvise(mmap.MADV_NOHUGEPAGE)
before = smaps("Rss:")
found = huge_pages.arrange(json.loads(sys.argv[1]))
print(json.dumps({**found._asdict(), "grown_mb": smaps("Rss:") - before, "seen_mb": smaps("AnonHugePages:")}))
assert all(full[place] == 1 for place in range(0, len(full), 4096))
"""


def arrange(cpu_seconds: float | None, *, refused: bool = False) -> dict[str, Any]:
    """Return the report of a new process. It has 64 MiB of memory, and maps that it has only read or half used.

    ``refused``: the process has excluded its memory from huge pages.
    """
    command = [sys.executable, "-c", PROGRAM, json.dumps(cpu_seconds), json.dumps(refused)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["anonymous_mb"] >= 64
    return found


def test_full_memory_moves_and_a_map_with_holes_does_not_grow() -> None:
    found = arrange(100.0)
    if OBSTACLE:
        assert (found["problem"], found["huge_mb"]) == (OBSTACLE, 0)
        return
    assert found["problem"] == ""
    assert 60 <= found["huge_mb"] <= found["seen_mb"]
    assert found["grown_mb"] < 16


def test_no_more_cpu_time_is_taken_than_is_allowed() -> None:
    found = arrange(1e-6)
    assert found["huge_mb"] == 0
    assert found["problem"] == (OBSTACLE or "the CPU time for it is spent")


def test_without_a_budget_nothing_moves() -> None:
    found = arrange(None)
    assert (found["huge_mb"], found["problem"]) == (0, "it is switched off")


def test_memory_that_a_library_has_excluded_stays_as_it_is() -> None:
    found = arrange(100.0, refused=True)
    assert found["huge_mb"] < 60


APP = """
@app.preload
def preload():
    app.image = bytearray(b"x") * (64 << 20)

@app.entrypoint
async def entrypoint(ctx):
    app.image[ctx.job.metadata] = 1
    app.image[-1] = 1
    with open("/proc/self/smaps_rollup") as found:
        lines = [line.split() for line in found]
    return {line[0]: int(line[1]) / 1024 for line in lines if line[-1] == "kB"}
"""


async def test_a_zygote_moves_its_image_and_a_session_that_writes_to_it_copies_small_pages(
    make_app: Callable[[str], str],
) -> None:
    started: list[Event] = []
    pool = ProcessPool(make_app(APP), num_idle_processes=1, huge_pages_seconds=100.0)
    pool.subscribe(lambda event: started.append(event) if isinstance(event, ZygoteStarted) else None)
    async with pool:
        memory = (await (await pool.launch(20 << 20)).wait()).result
        (event,) = started
        assert isinstance(event, ZygoteStarted)
        assert event.anonymous_mb > 64
        assert memory["Private_Dirty:"] < 30, memory
        if OBSTACLE:
            assert event.huge_pages_mb == 0
        else:
            assert event.huge_pages_mb >= 60
            assert 0 < event.huge_pages_seconds < 100
            assert memory["AnonHugePages:"] >= 50
            zygote = pool.stats().zygote_pid
            assert zygote is not None
            assert proc.rss_mb(zygote) < 64 + 100


async def test_a_zygote_leaves_its_memory_as_it_is_if_the_operator_wants_that(make_app: Callable[[str], str]) -> None:
    started: list[Event] = []
    pool = ProcessPool(make_app(APP), num_idle_processes=1, huge_pages_seconds=None)
    pool.subscribe(lambda event: started.append(event) if isinstance(event, ZygoteStarted) else None)
    async with pool:
        (event,) = started
        assert isinstance(event, ZygoteStarted)
        assert (event.huge_pages_mb, event.anonymous_mb > 64) == (0, True)


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_wrong_budget_is_refused(wrong: Any) -> None:
    with pytest.raises(OptionError, match="huge_pages_seconds is"):
        PoolOptions(huge_pages_seconds=wrong)
