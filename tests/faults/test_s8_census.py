"""S8: after a thousand sessions everything is as before, and no two processes had the same random numbers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import eventually, zygote_pid

from greenroom import ProcessPool
from greenroom.system import proc

MakeApp = Callable[[str], str]

APP = """
import random, secrets, tempfile, uuid

@app.preload
def preload():
    random.random(), uuid.uuid1(), secrets.token_hex()  # seeded before the forks, as if nothing were

@app.entrypoint
async def entrypoint(ctx):
    name = next(tempfile._get_candidate_names())
    return [random.random(), str(uuid.uuid1()), str(uuid.uuid4()), secrets.token_hex(), name]
"""

NUMPY_APP = """
import numpy
numpy.random.random()

@app.entrypoint
async def entrypoint(ctx):
    return [float(numpy.random.random()), float(numpy.random.default_rng().random())]
"""

SESSIONS = 1000
AT_A_TIME = 8


async def sessions(pool: ProcessPool, number: int) -> list[list[object]]:
    results: list[list[object]] = []

    async def one_after_the_other() -> None:
        while len(results) < number:
            report = await (await pool.launch(timeout=30.0)).wait()
            assert report.outcome == "succeeded", report
            results.append(report.result)

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_A_TIME)))
    return results


def assert_all_different(results: list[list[object]]) -> None:
    for column in zip(*results, strict=True):
        assert len(set(column)) == len(results)


class Census:
    def __init__(self, pool: ProcessPool) -> None:
        zygote = zygote_pid(pool)
        self.fds = len(os.listdir("/proc/self/fd"))
        self.threads = threading.active_count()
        self.zygote_fds = len(os.listdir(f"/proc/{zygote}/fd"))
        self.zygote_threads = len(os.listdir(f"/proc/{zygote}/task"))
        self.children = len(proc.children(os.getpid())), len(proc.children(zygote))
        self.memory_mb, self.zygote_memory_mb = proc.rss_mb(os.getpid()), proc.rss_mb(zygote)


@pytest.mark.night
async def test_S8_a_thousand_sessions(make_app: MakeApp) -> None:
    pool = ProcessPool(make_app(APP), num_idle_processes=AT_A_TIME, max_idle_processes=AT_A_TIME, idle_ttl=0.5)

    async def census() -> Census:
        def is_at_rest() -> bool:
            stats = pool.stats()
            has_been_sampled = stats.session_mb is not None  # by a thread, which stays
            at_rest = stats.jobs == stats.warming == 0 and len(pool.processes) == stats.idle == AT_A_TIME
            return has_been_sampled and at_rest

        await eventually(is_at_rest, "rest")
        return Census(pool)

    async with pool:
        results = await sessions(pool, SESSIONS // 4)  # so that caches and histories are filled
        before = await census()
        zygote = zygote_pid(pool)
        results += await sessions(pool, SESSIONS)
        after = await census()
        assert zygote_pid(pool) == zygote
        # For a moment it may have a directory of /proc open, to look for what the last session has left behind.
        await eventually(lambda: Census(pool).zygote_fds == before.zygote_fds, "no fd more than before")

    assert (after.fds, after.threads) == (before.fds, before.threads)
    assert after.zygote_threads == before.zygote_threads
    assert after.children == before.children == (after.children[0], AT_A_TIME)
    assert after.memory_mb - before.memory_mb < 12, "a thousand reports are kept"
    assert after.zygote_memory_mb - before.zygote_memory_mb < 4
    assert len(results) >= SESSIONS
    assert_all_different(results)
    assert not Path(f"/proc/{zygote}").exists()


TIME_BASED_APP = """
import uuid
uuid.uuid1()  # the C library keeps what it has drawn for it

@app.entrypoint
async def entrypoint(ctx):
    return uuid.uuid1().clock_seq
"""


async def test_S8_time_based_uuids_of_the_same_microsecond_differ(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(TIME_BASED_APP), num_idle_processes=AT_A_TIME) as pool:
        sequences = [(await (await pool.launch(timeout=30.0)).wait()).result for _ in range(AT_A_TIME)]
    assert len(set(map(str, sequences))) > AT_A_TIME / 2


async def test_S8_random_numbers_of_numpy(make_app: MakeApp) -> None:
    pytest.importorskip("numpy")
    async with ProcessPool(make_app(NUMPY_APP), num_idle_processes=AT_A_TIME) as pool:
        assert_all_different(await sessions(pool, 40))
