"""Several machines: ``python -m benchmarks.machines``. What HAProxy in front of three workers costs, in milliseconds.

HAProxy runs with the file of `greenroom init haproxy`. It, the workers and the clients share the machine, so figures
are comparable within a row. ``tests/machines`` counts answers and runs in the same cases. It needs HAProxy (Debian:
apt-get install haproxy).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]

import aiohttp
from machines.audit import Told
from machines.cluster import Cluster, Front
from machines.scenarios import KILLS, flow, fresh, kill_in_bursts

from benchmarks.machine import facts, steal_since, stolen_and_all
from benchmarks.stats import median, percentile

CALLS = 175
"""Calls of a flow: 7 s."""
LATE = 0.5
"""Seconds after which a call of a flow is late."""
STOPPED = 3.0
"""Seconds for which a worker is stopped."""
FREED = 0.2
"""Seconds after a session's end for which its slot counts as taken."""


def ms(told: Iterable[Told]) -> list[float]:
    return [1000 * (one.at - one.sent) for one in told]


def spread_of(values: list[float]) -> str:
    if not values:
        return "none"
    return f"p50 {median(values):.1f}, p99 {percentile(values, 99):.1f}, worst {max(values):.1f} ms"


def statuses(told: Iterable[Told]) -> str:
    counts = Counter("no answer" if one.status is None else str(one.status) for one in told)
    return ", ".join(f"{count} × {status}" for status, count in sorted(counts.items()))


# --- the cases -----------------------------------------------------------------------------------


async def idle(folder: Path) -> list[str]:
    """Starts through HAProxy and straight to a worker, in turn: over one connection, and over a new one each time."""
    async with (
        Cluster(folder, idle=5, jobs=30) as cluster,
        cluster.front() as front,
        aiohttp.ClientSession() as kept,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as new,
    ):
        url = await cluster["a"].worker.url()
        found: dict[str, list[float]] = {"straight, one connection": [], "straight, new connections": [], "HAProxy": []}
        for _ in range(200):
            for session, name in zip((kept, new), found, strict=False):
                begin = time.monotonic()
                async with session.post(f"{url}/v1/jobs", json={"metadata": {"key": fresh("straight")}}) as answer:
                    await answer.read()
                found[name].append(1000 * (time.monotonic() - begin))
                await asyncio.sleep(0.02)
            found["HAProxy"] += ms([await front.start_job(fresh("idle"))])
            await asyncio.sleep(0.02)
        wrong = await cluster.faults(front)
    beside = [median(found["HAProxy"]) - median(values) for values in list(found.values())[:2]]
    lines = [f"{name}: {spread_of(values)}" for name, values in found.items()]
    return [*lines, f"p50 beside them: {beside[0]:+.1f} and {beside[1]:+.1f} ms", *wrong]


async def at_once(folder: Path, idle_processes: int) -> list[str]:
    """500 calls at once for 30 slots, with so many idle processes in each worker."""
    async with Cluster(folder, idle=idle_processes, jobs=10) as cluster, cluster.front() as front:
        begin = time.monotonic()
        told = await asyncio.gather(*(front.start_job(fresh("burst"), stays=True) for _ in range(500)))
        seconds = time.monotonic() - begin
        tries = int((await front.rows())["starts", "BACKEND"]["wretr"])
        wrong = await cluster.faults(front)
    accepted, refused = [one for one in told if one.is_accepted], [one for one in told if not one.is_accepted]
    return [
        f"{statuses(told)}; all told after {seconds:.2f} s, {tries / 500:.1f} further tries each",
        f"accepted: {spread_of(ms(accepted))}",
        f"told no: {spread_of(ms(refused))}",
        *wrong,
    ]


async def near_full(folder: Path) -> list[str]:
    """Random calls of random lengths, at 95 % of 30 slots."""
    chance = random.Random(19)
    async with Cluster(folder, idle=10, jobs=10) as cluster, cluster.front() as front:
        tasks = []
        end = time.monotonic() + 10.0
        while time.monotonic() < end:
            length = chance.expovariate(1 / 1.36)
            tasks.append(asyncio.create_task(front.start_job(fresh("near-full"), seconds=length)))
            await asyncio.sleep(chance.expovariate(21.0))
        told = await asyncio.gather(*tasks)
        rows = await front.rows()
        wrong = await cluster.faults(front)
        ends = await _ends(cluster, told)
    refused = [one for one in told if one.status == 503]
    taken = [(one.sent, ends[one.id] + FREED) for one in told if one.is_accepted]
    free = [one for one in refused if not _was_full(taken, one)]
    tries = int(rows["starts", "BACKEND"]["wretr"]) / len(told)
    return [
        f"{statuses(told)}; {len(free)} refused while a slot was surely free; {tries:.2f} further tries each",
        f"accepted: {spread_of(ms(one for one in told if one.is_accepted))}",
        *wrong,
    ]


async def _ends(cluster: Cluster, told: list[Told]) -> dict[str, float]:
    """Return when each accepted session has ended, on the clock of the calls."""
    clock, ends = time.time() - time.monotonic(), dict[str, float]()
    while len(ends) < len([one for one in told if one.is_accepted]):
        await asyncio.sleep(0.1)
        for machine in cluster.machines.values():
            ended = await machine.jobs("?state=ended")
            ends |= {job["id"]: job["ended"] - clock for job in ended if job["ended"] is not None}
    return ends


def _was_full(taken: list[tuple[float, float]], one: Told) -> bool:
    moments = [one.sent, one.at, *(begin for begin, _ in taken if one.sent <= begin <= one.at)]
    return any([sum(begin <= moment <= end for begin, end in taken) >= 30 for moment in moments])


async def _during_flow(folder: Path, act: Callable[[Cluster, Front], Awaitable[list[str]]]) -> list[str]:
    """Do something to a worker in the midst of 25 calls in a second."""
    async with Cluster(folder, idle=5, jobs=30) as cluster, cluster.front() as front:
        flowing = asyncio.create_task(flow(front, CALLS))
        await asyncio.sleep(2.0)
        seen = await act(cluster, front)
        told = await flowing
        late = [one for one in told if one.at - one.sent > LATE]
        wrong = await cluster.faults(front)
    return [f"{statuses(told)}; {len(late)} later than {LATE} s; {spread_of(ms(told))}", *seen, *wrong]


async def _out_after(front: Front, begin: float) -> str:
    await front.until_down("starts", "a")
    return f"out after {time.monotonic() - begin:.2f} s"


async def kill(folder: Path) -> list[str]:
    """A worker is killed."""

    async def act(cluster: Cluster, front: Front) -> list[str]:
        begin = time.monotonic()
        await cluster.kill("a")
        return [await _out_after(front, begin)]

    return await _during_flow(folder, act)


async def drain(folder: Path) -> list[str]:
    """A worker drains."""

    async def act(cluster: Cluster, front: Front) -> list[str]:
        begin = time.monotonic()
        cluster["a"].worker.signal(signal.SIGTERM)
        out = await _out_after(front, begin)
        await cluster["a"].worker.exit_code()
        cluster["a"].is_living = False
        return [out]

    return await _during_flow(folder, act)


async def restart(folder: Path) -> list[str]:
    """A worker is killed, and started anew."""

    async def act(cluster: Cluster, front: Front) -> list[str]:
        await cluster.kill("a")
        begin = time.monotonic()
        await cluster["a"].start()
        ready = time.monotonic() - begin
        await front.until_up("starts", "a")
        return [f"ready after {ready:.2f} s, and in {time.monotonic() - begin - ready:.2f} s later"]

    return await _during_flow(folder, act)


async def stop(folder: Path) -> list[str]:
    """A worker is stopped for 3 s."""

    async def act(cluster: Cluster, front: Front) -> list[str]:
        begin = time.monotonic()
        cluster["a"].worker.signal(signal.SIGSTOP)
        try:
            out = await _out_after(front, begin)
            await asyncio.sleep(begin + STOPPED - time.monotonic())
        finally:
            cluster["a"].worker.signal(signal.SIGCONT)
        return [out]

    return await _during_flow(folder, act)


async def kills(folder: Path) -> list[str]:
    """Workers are killed in the midst of bursts of 15 calls."""
    async with Cluster(folder, idle=5, jobs=30) as cluster, cluster.front() as front:
        wrong = await kill_in_bursts(cluster, front)
        began = {one.key for one in cluster.began()}
        unknown = [one for one in front.told if one.is_unknown]
        ran = len([one for one in unknown if one.key in began])
    return [f"{KILLS} kills, {statuses(front.told)}; of {len(unknown)} without an answer, {ran} had begun", *wrong]


CASES: dict[str, Callable[[Path], Awaitable[list[str]]]] = {
    "idle": idle,
    "burst-10": lambda folder: at_once(folder, 10),
    "burst-3": lambda folder: at_once(folder, 3),
    "near-full": near_full,
    "kill": kill,
    "drain": drain,
    "restart": restart,
    "stop": stop,
    "kills": kills,
}


async def run(names: list[str], rounds: int) -> None:
    for _ in range(rounds):
        for name in names:
            load, before = os.getloadavg()[0], stolen_and_all()
            with tempfile.TemporaryDirectory() as folder:
                lines = await CASES[name](Path(folder))
            print(f"\n{name} (load {load:.1f} to {os.getloadavg()[0]:.1f}, {steal_since(before):.1%} stolen)")
            print("\n".join(f"  {line}" for line in lines), flush=True)


def main() -> int:
    """Print the figures of all cases."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machines")
    parser.add_argument("--only", metavar="CASE,...", default=",".join(CASES), help="only these cases")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(CASES):
        parser.error(f"unknown case: {', '.join(unknown)}. The cases are: {', '.join(CASES)}")
    if shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        parser.error("there is no haproxy on this machine (Debian: apt-get install haproxy)")
    print(", ".join(f"{name} {value}" for name, value in facts().items()))
    asyncio.run(run(names, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
