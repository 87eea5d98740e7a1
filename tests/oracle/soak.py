"""A seeded soak: 60 jobs and offers whose endings a seed decides, on three idle processes."""

from __future__ import annotations

import random
import signal

from oracle.apps import ENDINGS
from oracle.setting import Setting, scenario
from support import eventually, idle_pids, kill

from greenroom import Job, ProcessPool

SEED = 139
"""Each way to end comes at least three times."""
JOBS = 60
IDLE = 3

BY_ITSELF = ["complete", "raise", "exit", "exit at once", "killed", "crash", "shut down", "leave children"]
BY_ORDER = ["cancel", "kill", "terminate", "leave", "reserve", "release", "lose the reserved"]


@scenario()
async def soak(s: Setting) -> None:
    """Up to three jobs at a time are launched and driven to the ends that a seed has chosen; then the pool rests."""
    chance = random.Random(SEED)
    async with s.pool(s.app(ENDINGS), num_idle_processes=IDLE) as pool:
        count = 0
        while count < JOBS:
            chosen = [chance.choice(BY_ITSELF + BY_ORDER) for _ in range(min(chance.randint(1, IDLE), JOBS - count))]
            names = [f"{count + place:02} {how}" for place, how in enumerate(chosen)]
            kills_idle = chance.random() < 0.2
            count += len(chosen)
            for name, how in zip(names, chosen, strict=True):
                await begin(s, pool, name, how)
            for name, how in zip(names, chosen, strict=True):
                await end(s, pool, name, how)
            await s.at_rest(pool, IDLE)
            if kills_idle:
                await kill_idle(pool)
                await s.at_rest(pool, IDLE)


async def kill_idle(pool: ProcessPool) -> None:
    pid = idle_pids(pool)[0]
    kill(pid)
    await eventually(lambda: pid not in {process.pid for process in pool.processes})


async def begin(s: Setting, pool: ProcessPool, name: str, how: str) -> None:
    # Otherwise the order of the idle processes, and so the process that this job gets, would depend on the machine.
    await eventually(lambda: pool.stats().idle == IDLE)
    if how in BY_ITSELF:
        await s.launch(pool, name, how)
    elif how in ("reserve", "release", "lose the reserved"):
        reservation = await pool.reserve(Job(name, "complete"))
        if how == "reserve":
            reservation.launch()
        elif how == "release":
            reservation.release("it went to another worker")
        else:
            first = reservation.pid
            assert first is not None
            kill(first)
            await eventually(lambda: reservation.pid not in (None, first))
            reservation.launch()
    else:
        await s.launch(pool, name, "stay")


async def end(s: Setting, pool: ProcessPool, name: str, how: str) -> None:
    if how in ("cancel", "kill", "terminate", "leave"):
        visit = await s.visit("job", name)
        if how == "leave":
            visit.order("fine")
        elif how == "kill":
            kill(visit.pid)
        elif how == "terminate":
            kill(visit.pid, signal.SIGTERM)
        else:
            s.handles[name].cancel("the caller hung up")
    await eventually(lambda: not pool.has_job(name))
