"""Lanes of a burst: in order, never more than there are, and none is lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import DEADLINE, eventually

from greenroom.integrations.livekit.job_source.lanes import LONGEST, RUNS, WAITS, WINDOW, Lanes, Quiet
from greenroom.system import proc


@given(st.lists(st.tuples(st.floats(0.01, 0.2), st.floats(0, 1), st.floats(0, 2)), min_size=1, max_size=80))
def test_a_process_is_quiet_when_it_wanted_little_for_a_whole_window(steps: list[tuple[float, float, float]]) -> None:
    quiet, now, ran, waited = Quiet(0.0), 0.0, 0.0, 0.0
    history = [(0.0, 0.0, 0.0)]
    assert not quiet.has_come(0.0, {})
    for seconds, runs, waits in steps:
        now, ran, waited = now + seconds, ran + seconds * runs, waited + seconds * waits
        history.append((now, ran, waited))
        has_come = quiet.has_come(now, {1: (ran, waited)})
        windows = [one for one in history if now - one[0] >= WINDOW]
        begin, ran_before, waited_before = max(windows, default=(now, ran, waited))
        is_quiet = ran - ran_before <= RUNS * (now - begin) and waited - waited_before <= WAITS * (now - begin)
        edges = (ran - ran_before - RUNS * (now - begin), waited - waited_before - WAITS * (now - begin))
        if min(map(abs, edges)) < 1e-9:
            return  # a sum of differences is not exactly the difference of the sums
        assert has_come == (now >= LONGEST or (windows != [] and is_quiet))
        if has_come:
            return


def test_a_process_that_always_computes_is_started_up_in_the_end() -> None:
    quiet = Quiet(0.0)
    assert not quiet.has_come(0.0, {1: (0.0, 0.0)})
    assert not quiet.has_come(LONGEST - 0.01, {1: (LONGEST, 0.0)})
    assert quiet.has_come(LONGEST, {1: (LONGEST, 0.0)})


def test_a_thread_that_ends_does_not_make_a_busy_process_look_quiet() -> None:
    quiet, seconds = Quiet(0.0), [0.1 * step for step in range(10)]
    for step, now in enumerate(seconds):
        threads = {1: (now, 0.0), 2: (3.0, 0.0)} if step < 5 else {1: (now, 0.0)}
        assert not quiet.has_come(now, threads)


async def test_lanes_are_entered_in_order_and_never_by_more_than_there_are() -> None:
    lanes, entered = Lanes(2), list[int]()

    async def enter(number: int) -> None:
        await lanes.enter(DEADLINE)
        entered.append(number)

    tasks = [asyncio.create_task(enter(number)) for number in range(5)]
    await eventually(lambda: len(entered) == 2)
    for count in (3, 4, 5):
        lanes.leave()
        await eventually(lambda count=count: len(entered) == count)  # type: ignore[misc]
        assert entered == list(range(count))
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("moment", ["waiting", "called"])
async def test_one_who_goes_away_leaves_the_lane_to_the_next(moment: str) -> None:
    lanes = Lanes(1)
    await lanes.enter(DEADLINE)
    gone, next_one = (asyncio.create_task(lanes.enter(DEADLINE)) for _ in range(2))
    await asyncio.sleep(0)
    if moment == "called":
        lanes.leave()  # the first in the queue has the lane now, and has not run yet
        gone.cancel()
    else:
        gone.cancel()
        await asyncio.sleep(0)
        lanes.leave()
    with suppress(asyncio.CancelledError):
        await gone
    await next_one


async def test_one_whose_patience_ends_goes_on_and_the_count_holds() -> None:
    lanes = Lanes(1)
    await lanes.enter(DEADLINE)
    await lanes.enter(0.01)
    third = asyncio.create_task(lanes.enter(DEADLINE))
    lanes.leave()
    await asyncio.sleep(0)
    assert not third.done()
    lanes.leave()
    await third


BUSY = "import time\nwhile True: pass"
IDLE = "import sys\nprint(1, flush=True)\nsys.stdin.read()"


def has_computed(pid: int) -> bool:
    return sum(ran for ran, _ in proc.schedule_of_threads(pid).values()) > 0.3


async def test_the_lane_of_a_process_is_free_when_it_is_quiet_or_gone() -> None:
    """One process computes until it is killed, the other has nothing to do."""
    for program, is_busy in ((BUSY, True), (IDLE, False)):
        lanes = Lanes(1)
        await lanes.enter(DEADLINE)
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
            handle: Any = SimpleNamespace(pid=run.pid, report=None)
            following = asyncio.create_task(lanes.follow(handle))
            if is_busy:
                await eventually(partial(has_computed, run.pid))
                assert not following.done()
                run.kill()
                run.wait()
            await following
            assert run.stdin is not None
            run.stdin.close()
        await lanes.enter(0.001)
