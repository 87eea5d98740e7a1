"""The targets of several machines, each with the audit: answers and runs are counted, and no times."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path

import pytest
from machines.audit import Told
from machines.cluster import Cluster, Front, changed
from machines.scenarios import (
    BURST,
    KILLS,
    STILL,
    at_once,
    beside_full,
    flow,
    fresh,
    frozen,
    given_up,
    hung_up,
    kill_in_bursts,
    no_longer_asked,
    slow_start,
    started_on,
    unlike,
)
from support import DEADLINE

pytestmark = [pytest.mark.more, pytest.mark.usefixtures("installed")]

FROZEN = 1.0
"""Seconds for which workers are stopped at least: the stall guard takes no notice of less than half a second."""
CALLS = 175
"""Calls of a flow: 7 s, if the machine keeps up."""


@pytest.mark.alone
@pytest.mark.parametrize("idle", [10, 3])
async def test_of_500_calls_at_once_as_many_are_accepted_as_fit(idle: int, tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=idle, jobs=10) as cluster, cluster.front() as front:
        assert await at_once(cluster, front) == []


@pytest.mark.alone
async def test_near_full_nothing_is_refused_while_a_slot_is_surely_free(tmp_path: Path) -> None:
    chance = random.Random(19)
    async with Cluster(tmp_path, idle=10, jobs=10) as cluster, cluster.front() as front:
        tasks = []
        for _ in range(210):
            length = chance.expovariate(1 / MEAN)
            tasks.append(asyncio.create_task(front.start_job(fresh("near-full"), seconds=length)))
            await asyncio.sleep(chance.expovariate(RATE))
        told = await asyncio.gather(*tasks)
        assert {one.status for one in told} <= {201, 503}, "no connection is closed without an answer"
        assert await cluster.faults(front) == []
        taken = await _taken(cluster, told)
    wrong = [one.key for one in told if one.status == 503 and not _may_be_full(taken, one)]
    assert wrong == []


RATE, MEAN = 21.0, 1.36
"""Calls in a second, and seconds of a session: 95 % of 30 slots."""
AFTER = 0.5
"""Seconds after a session's end for which its slot counts as taken. HAProxy asks a full worker each 50 ms."""


async def _taken(cluster: Cluster, told: list[Told]) -> list[tuple[float, float]]:
    """Return when slots may have been taken: from the call on until some time after the end of its session."""
    clock = time.time() - time.monotonic()
    ends: dict[str, float] = {}
    async with asyncio.timeout(DEADLINE):
        while len(ends) < len([one for one in told if one.is_accepted]):
            for machine in cluster.machines.values():
                ended = await machine.jobs("?state=ended")
                ends |= {job["id"]: job["ended"] for job in ended if job["ended"] is not None}
            await asyncio.sleep(0.05)
    return [(one.sent, ends[one.id] - clock + AFTER) for one in told if one.is_accepted]


def _may_be_full(taken: list[tuple[float, float]], one: Told) -> bool:
    """Return whether all slots may have been taken at some time between a call and its answer."""
    moments = [one.sent, one.at, *(begin for begin, _ in taken if one.sent <= begin <= one.at)]
    return any([sum(begin <= moment <= end for begin, end in taken) >= 30 for moment in moments])


@pytest.mark.in_pairs
async def test_a_kill_breaks_only_starts_in_flight(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=6, jobs=30) as cluster, cluster.front() as front:
        flowing = asyncio.create_task(flow(front, CALLS))
        await _some(front, CALLS // 3)
        await cluster.kill("a")
        killed = time.monotonic()
        assert await front.until_down("starts", "a")
        told = await flowing
        unknown = [one for one in told if one.status != 201]
        assert [one for one in unknown if not one.is_unknown or one.sent > killed] == []
        assert await cluster.faults(front) == []


async def _some(front: Front, count: int) -> None:
    """Wait until so many calls have their answer."""
    async with asyncio.timeout(DEADLINE):
        while len(front.told) < count:
            await asyncio.sleep(0.01)


@pytest.mark.in_pairs
async def test_a_drain_refuses_nothing(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=6, jobs=30) as cluster, cluster.front() as front:
        flowing = asyncio.create_task(flow(front, CALLS))
        await _some(front, CALLS // 3)
        cluster["a"].worker.signal(signal.SIGTERM)
        assert unlike(await flowing, 201) == []
        async with asyncio.timeout(DEADLINE):
            assert await cluster["a"].worker.exit_code() == 0
        cluster["a"].is_living = False
        assert await cluster.faults(front) == []


@pytest.mark.in_pairs
async def test_a_worker_that_was_killed_comes_back(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=6, jobs=30) as cluster, cluster.front() as front:
        flowing = asyncio.create_task(flow(front, CALLS))
        await _some(front, CALLS // 3)
        await cluster.kill("a")
        killed = time.monotonic()
        await cluster["a"].start()
        assert await front.until_up("starts", "a")
        await started_on(front, "a")
        told = await flowing
        assert [one for one in told if one.status != 201 and (not one.is_unknown or one.sent > killed)] == []
        assert await cluster.faults(front) == []


@pytest.mark.in_pairs
async def test_a_frozen_worker_holds_few_calls_and_loses_none(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=6, jobs=30) as cluster, cluster.front() as front:
        wrong, _ = await frozen(cluster, front)
        assert wrong == []


@pytest.mark.in_pairs
async def test_what_a_frozen_worker_held_is_tried_elsewhere(tmp_path: Path) -> None:
    """By the stall guard: the worker says no to all that has waited, and HAProxy asks another one."""
    async with Cluster(tmp_path, idle=6, jobs=30) as cluster, cluster.front() as front:
        wrong, late = await frozen(cluster, front)
        assert wrong == []
        assert "a" not in {one.worker for one in late}


@pytest.mark.in_pairs
async def test_a_start_that_was_given_up_does_not_run(tmp_path: Path) -> None:
    """By the stall guard: HAProxy has told the clients 504, and the workers go on only then."""
    edits = (STILL, changed("timeout server 24s", "timeout server 2s"))
    async with Cluster(tmp_path, jobs=30) as cluster, cluster.front(*edits) as front:
        assert await given_up(cluster, front) == []


@pytest.mark.in_pairs
async def test_kills_in_the_midst_of_bursts(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=5, jobs=30) as cluster, cluster.front() as front:
        assert await kill_in_bursts(cluster, front) == []
        assert len(front.told) == BURST * KILLS


@pytest.mark.in_pairs
async def test_who_hangs_up_on_a_frozen_worker_leaves_nothing_behind(tmp_path: Path) -> None:
    """By `option abortonclose`, and by the stall guard for what had come to the workers before."""
    async with Cluster(tmp_path, jobs=30) as cluster, cluster.front(STILL) as front:
        for machine in cluster.machines.values():
            machine.worker.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            tasks = [asyncio.create_task(front.start_job(fresh("gone"), stays=True)) for _ in range(4)]
            assert await front.until(lambda rows: int(rows["starts", "BACKEND"]["scur"]) == 4)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert await front.until(lambda rows: int(rows["starts", "BACKEND"]["scur"]) == 0)
            await asyncio.sleep(stopped + FROZEN - time.monotonic())
        finally:
            for machine in cluster.machines.values():
                machine.worker.signal(signal.SIGCONT)
        assert await cluster.faults(front) == []
        assert cluster.began() == []


@pytest.mark.in_pairs
async def test_who_hangs_up_while_a_process_warms_leaves_nothing_behind(tmp_path: Path) -> None:
    async with Cluster(tmp_path, jobs=30) as cluster, cluster.front(STILL) as front:
        assert await hung_up(cluster, front) == []


@pytest.mark.in_pairs
async def test_a_slow_start_is_waited_for(tmp_path: Path) -> None:
    async with Cluster(tmp_path, jobs=30) as cluster, cluster.front(STILL) as front:
        assert await slow_start(cluster, front) == []


@pytest.mark.in_pairs
async def test_each_no_is_met_by_a_further_try(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=6, jobs=6) as cluster:
        await asyncio.gather(cluster["a"].fill(), cluster["b"].fill())
        async with cluster.front(STILL) as front:
            assert await beside_full(front) == []
            await cluster["c"].worker.until("/v1/pool", lambda answer: not answer.body["jobs"])
            assert await beside_full(front, pad=20_000) == []
        async with cluster.front() as front:
            await cluster["c"].worker.until("/v1/pool", lambda answer: not answer.body["jobs"])
            assert await no_longer_asked(cluster, front, "a", "b") == []


@pytest.mark.in_pairs
async def test_the_largest_body_is_tried_again(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "--max-request-bytes", "200000", idle=6, jobs=6) as cluster:
        await asyncio.gather(cluster["a"].fill(), cluster["b"].fill())
        async with cluster.front(STILL) as front:
            assert await beside_full(front, pad=199_900) == []
            large = await front.start_job("too-large", pad=200_000)
            assert (large.status, large.error) == (413, "too_large")
