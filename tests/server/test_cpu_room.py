"""Jobs that would make the running ones late are rejected: the rule, the figures that it reads, and a real worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_worker import RunningWorker

from greenroom.server.machine.cpu_room import (
    COMPUTES,
    FEWEST_WAKE_UPS,
    NOTICEABLE,
    SELDOM,
    SETTLED,
    CpuCosts,
    CpuMeter,
    CpuSample,
    further_sessions,
)

MakeApp = Callable[[str], str]

LONGEST = 5.0

costs = st.builds(
    CpuCosts,
    cpus=st.floats(0.1, 64),
    free=st.none() | st.floats(0, 64),
    wait_ms=st.floats(0, 50),
    session_cpus=st.none() | st.floats(0, 2),
    sessions=st.integers(0, 500),
)


@given(costs, st.integers(0, 500))
def test_a_further_job_never_makes_room(costs: CpuCosts, jobs: int) -> None:
    now, then = further_sessions(costs, jobs, LONGEST), further_sessions(costs, jobs + 1, LONGEST)
    assert now is None or (then is not None and 0 <= then <= now)


@given(costs, st.integers(0, 500))
def test_there_is_no_room_where_sessions_wait_too_long(costs: CpuCosts, jobs: int) -> None:
    room = further_sessions(costs, jobs, LONGEST)
    if costs.wait_ms > LONGEST:
        assert room == 0
    elif costs.session_cpus is None or costs.session_cpus >= COMPUTES:
        assert room is None


def test_jobs_that_do_not_run_yet_take_room_already() -> None:
    """Offers that come at the same moment must not all be accepted against the same CPU time."""
    known = CpuCosts(cpus=2.0, wait_ms=2.0, session_cpus=0.1, sessions=10)
    assert [further_sessions(known, jobs, LONGEST) for jobs in (10, 13, 15, 16, 20)] == [6, 3, 1, 0, 0]


def test_nobody_is_rejected_while_nobody_waits() -> None:
    """By their use alone the CPUs are too few for one more, but nobody is late."""
    known = CpuCosts(cpus=2.0, wait_ms=NOTICEABLE * LONGEST, session_cpus=0.2, sessions=10)
    assert further_sessions(known, 10, LONGEST) == 1


def test_of_the_free_cpu_time_the_part_is_usable_that_leaves_waits_short() -> None:
    """With a fifth of the free time left, waits are five times as long."""
    known = CpuCosts(cpus=2.0, wait_ms=1.5, session_cpus=0.1, sessions=10)
    assert further_sessions(known, 10, LONGEST) == 7


def session(meter: CpuMeter, seconds: int, *, used: float, waited: float, wake_ups: int, count: int = 1) -> None:
    """Let some sessions run for a while: all figures are for one session and one second."""
    for second in range(seconds + 1):
        sample = CpuSample(used * second, waited * second, wake_ups * second)
        meter.note(float(second), {f"p{number}": sample for number in range(count)}, count, free=None)


def test_the_meter_knows_what_sessions_take_and_how_long_they_wait() -> None:
    meter = CpuMeter(2.0)
    session(meter, 30, used=0.25, waited=0.1, wake_ups=50)
    assert meter.costs.session_cpus == pytest.approx(0.25)
    assert meter.costs.start_seconds == pytest.approx(0.25 * SETTLED)
    assert meter.costs.wait_ms == pytest.approx(2.0, rel=1e-3)
    meter.note(40.0, {}, 0, free=None)
    assert meter.costs.session_cpus == pytest.approx(0.25)  # what they take is still known
    assert meter.costs.wait_ms < 2.0  # nobody waits any more


def test_a_start_up_says_nothing_of_waits() -> None:
    meter = CpuMeter(2.0)
    session(meter, int(SETTLED), used=1.0, waited=0.5, wake_ups=50)
    assert (meter.costs.wait_ms, meter.costs.session_cpus) == (0.0, None)


def test_one_long_wait_of_an_idle_session_says_little_and_those_of_many_say_much() -> None:
    one, many = CpuMeter(2.0), CpuMeter(2.0)
    session(one, 30, used=0.0, waited=0.2, wake_ups=10)
    session(many, 30, used=0.0, waited=0.2, wake_ups=10, count=30)
    assert one.costs.wait_ms == pytest.approx(200 / FEWEST_WAKE_UPS)
    assert many.costs.wait_ms == pytest.approx(20)


def test_waits_of_a_session_that_computes_do_not_count() -> None:
    meter = CpuMeter(2.0)
    session(meter, 30, used=0.5, waited=0.5, wake_ups=int(SELDOM) - 1, count=4)
    assert meter.costs.wait_ms == 0.0


def test_waits_of_a_session_that_no_longer_sleeps_count() -> None:
    """It has become late for everything, so there is always something left to do."""
    meter = CpuMeter(2.0)
    for second in range(31):
        sample = CpuSample(0.1 * second, 0.5 * second, 50 * min(second, 10))
        meter.note(float(second), {"p": sample}, 1, free=None)
    assert meter.costs.wait_ms == pytest.approx(500 / FEWEST_WAKE_UPS, rel=1e-3)


def test_what_others_use_is_not_free() -> None:
    """By their own use ten sessions leave a whole CPU. A neighbour has taken most of it."""
    known = CpuCosts(cpus=2.0, wait_ms=0.0, session_cpus=0.1, sessions=10)
    assert further_sessions(known, 10, LONGEST) == 10
    assert further_sessions(replace(known, free=0.35), 10, LONGEST) == 3


def test_the_meter_gives_back_what_a_start_up_uses() -> None:
    """Nine sessions take a tenth of a CPU each, and a tenth one starts up with a whole one."""
    meter = CpuMeter(2.0)
    for second in range(31):
        settled = {f"p{number}": CpuSample(0.1 * second, 0.0, 50 * second) for number in range(9)}
        starting = {"new": CpuSample(second - 27.0, 0.0, 50)} if second >= 28 else {}
        meter.note(float(second), settled | starting, 9 + len(starting), free=0.1 if starting else 1.1)
    assert meter.costs.free == pytest.approx(1.0, abs=0.02)  # and not 0.1


FRAMES = """
@app.entrypoint
async def entrypoint(ctx):
    while True:
        begin = time.thread_time()
        while time.thread_time() - begin < 0.006:
            pass
        await asyncio.sleep(0.014)
"""


async def test_a_job_that_would_make_others_late_is_rejected(make_app: MakeApp) -> None:
    """One CPU, and sessions of which each wants a third of it, in pieces. The fifth finds no room."""
    app = make_app(FRAMES)
    cpu = str(min(os.sched_getaffinity(0)))
    pinned: dict[str, Any] = {"wrapper": ("taskset", "-c", cpu)}
    async with RunningWorker(app, "--max-cpu-wait-ms", "3", **pinned) as worker:
        for number in range(4):
            assert (await worker.post(id=f"call-{number}")).status == 201
        rejected = await worker.until("/readyz", lambda answer: answer.status == 503 and answer.body["reason"] == "cpu")
        assert "max_cpu_wait_ms is 3" in rejected.body["detail"]
        answer = await worker.post(id="call-too-many")
        assert (answer.status, answer.error["reason"]) == (503, "cpu")
        pressure = (await worker.get("/pressure")).body
        assert (pressure["room"], pressure["room_limit"]) == (0, "cpu")
        assert pressure["session_cpus"] > 0.05
        for number in range(4):
            await worker.ask("DELETE", f"/v1/jobs/call-{number}")
        await worker.until("/readyz", lambda answer: answer.status == 200)
        assert (await worker.post(id="call-later")).status == 201


COMPUTES_ALL_THE_TIME = """
@app.entrypoint
async def entrypoint(ctx):
    while True:
        sum(range(100_000))
"""


@pytest.mark.more
async def test_jobs_that_compute_make_nobody_late(make_app: MakeApp) -> None:
    """Two of them on one CPU wait for each other for half of the time, and a third one is accepted."""
    app = make_app(COMPUTES_ALL_THE_TIME)
    pinned: dict[str, Any] = {"wrapper": ("taskset", "-c", str(min(os.sched_getaffinity(0))))}
    async with RunningWorker(app, "--max-cpu-wait-ms", "0.5", **pinned) as worker:
        for number in range(2):
            assert (await worker.post(id=f"run-{number}")).status == 201
        await worker.until("/pressure", lambda answer: (answer.body["session_cpus"] or 0) > 0.2)
        assert (await worker.get("/pressure")).body["cpu_wait_ms"] < 0.5
        assert (await worker.post(id="run-2")).status == 201


@pytest.mark.more
async def test_the_check_can_be_switched_off(make_app: MakeApp) -> None:
    app = make_app(FRAMES)
    pinned: dict[str, Any] = {"wrapper": ("taskset", "-c", str(min(os.sched_getaffinity(0))))}
    async with RunningWorker(app, "--max-cpu-wait-ms", "off", **pinned) as worker:
        for number in range(4):
            assert (await worker.post(id=f"call-{number}")).status == 201
        # It would be late now, by the same figures as above.
        await worker.until("/pressure", lambda answer: answer.body["cpu_wait_ms"] > 1.0)
        assert (await worker.get("/pressure")).body["room_limit"] != "cpu"
        assert (await worker.post(id="call-one-more")).status == 201
