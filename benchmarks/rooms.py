"""`python -m benchmarks.rooms`: rooms of a real LiveKit server, served by Greenroom and by livekit-agents' own worker.

The same agents, unmodified, on the same server, in one run, the two workers in turn:

- Bursts. Callers are in their rooms before, and say nothing until their agent is there. Then all rooms are dispatched
  at once, once: a room that nobody takes is counted as that.
- Bursts without callers on the machine.
- An agent that greets by an `AgentSession`: until its caller hears the first word.
- Arrivals at random, so many that they take a part of the CPUs with livekit-agents' worker.
- Two workers, one of which is drained or killed.

Needs what `tests/rooms` needs: `python3 scripts/livekit_server.py`, and the packages of the `bench` extra. What was
measured goes into benchmarks/results/rooms.json, and from there into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import livekit_server
from rooms.caller import Caller
from rooms.livekit_server import LiveKitServer
from rooms.stock_worker import AGENTS, StockWorker
from server.running_worker import RunningWorker

from benchmarks import report, rooms_report
from benchmarks.machine import facts, idle_and_all, steal_since, stolen_and_all
from benchmarks.rooms_report import TIMES, WORKERS
from greenroom.system import proc

NAME = "greeter"
PATIENCE = 45.0
CPU_SECONDS = 20.0
AFTERWARDS = 2.0
"""Seconds after the last call until its CPU time is read: the end of its process, and the refill."""
ROOMS_AFTER_LOSS = 6
"""Dispatched in the moment in which one of two workers begins to drain, or is killed."""
ANSWERING, GREETING = AGENTS / "answer.py", Path(__file__).parent / "agents" / "greeting.py"
PARTS = ("rest", "bursts", "alone", "greeting", "stream", "losses")
BUSY = 0.7
"""Part of the CPUs that arrivals at random take with livekit-agents' worker."""
STREAM_SECONDS, TRIAL_SECONDS = 120.0, 30.0
MOST_GREETED = 10
CALL_SECONDS = 4.0
"""For which an agent stays in its room, where nobody calls."""


@asynccontextmanager
async def a_server() -> AsyncIterator[LiveKitServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = LiveKitServer(livekit_server.ensure(), Path(folder, "livekit.log"))
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@asynccontextmanager
async def a_worker(kind: str, server: LiveKitServer, idle: int, agent: Path = ANSWERING) -> AsyncIterator[int]:
    """A worker that is registered and warm; gives its pid."""
    if kind == "livekit-agents":
        async with StockWorker(server, agent, agent_name=NAME, idle=idle) as stock:
            await stock.ready()
            await stock.logs(r"process \d+ is set up", count=idle)
            yield stock.pid
        return
    options = ("--livekit-agent-name", NAME, "--num-idle-processes", str(idle))
    async with RunningWorker(str(agent), *options, env={**os.environ, **server.environment}) as worker:
        await worker.logs("registered as AW_")
        await worker.until("/v1/pool", lambda answer: answer.body["idle"] >= idle)
        yield worker.pid


async def a_round(kind: str, rooms: int, idle: int) -> dict[str, Any]:
    """One burst; all times in seconds after the dispatch was asked for, sorted."""
    load = os.getloadavg()[0]
    async with a_server() as server, a_worker(kind, server, idle) as pid, AsyncExitStack() as stack:
        api = await stack.enter_async_context(server.api())
        callers = await call_in(server, stack, rooms)
        before, begin = tree_seconds(pid), time.monotonic()
        await asyncio.gather(*(api.dispatch(NAME, room) for room in callers))
        seen = await asyncio.gather(*(see(caller, begin) for caller in callers.values()))
        await asyncio.sleep(AFTERWARDS)
        cpu = tree_seconds(pid) - before
    return {"worker": kind, "rooms": rooms, "load": load, "cpu_per_call": cpu / rooms, **sorted_out(seen)}


async def a_quiet_round(kind: str, rooms: int, idle: int) -> dict[str, Any]:
    """One burst without callers on the machine: when the server has each agent in its room, by its own list."""
    load = os.getloadavg()[0]
    async with a_server() as server, a_worker(kind, server, idle), server.api() as api:
        names = [f"room-{number}" for number in range(rooms)]
        begin = time.time()
        await asyncio.gather(*(api.dispatch(NAME, room) for room in names))
        give_up = time.monotonic() + PATIENCE
        while sum(room.num_participants > 0 for room in await api.rooms()) < rooms and time.monotonic() < give_up:
            await asyncio.sleep(0.25)
        present = [await api.participants(room) for room in names]
    joined = sorted(each[0].joined_at_ms / 1000 - begin for each in present if each)
    return {"worker": kind, "alone": rooms, "load": load, "joined": joined, "not_taken": rooms - len(joined)}


async def a_greeting(kind: str, rooms: int, idle: int) -> dict[str, Any]:
    """One burst of rooms whose agents speak first; when each caller hears the first word."""
    load = os.getloadavg()[0]
    async with a_server() as server, a_worker(kind, server, idle, GREETING) as pid, AsyncExitStack() as stack:
        api = await stack.enter_async_context(server.api())
        callers = await call_in(server, stack, rooms)
        before, begin = tree_seconds(pid), time.monotonic()
        await asyncio.gather(*(api.dispatch(NAME, room) for room in callers))
        seen = await asyncio.gather(*(hear(caller, begin) for caller in callers.values()))
        await asyncio.sleep(AFTERWARDS)
        cpu = tree_seconds(pid) - before
    return {"worker": kind, "greeted": rooms, "load": load, "cpu_per_call": cpu / rooms, **sorted_out(seen)}


async def hear(caller: Caller, begin: float) -> dict[str, float]:
    """When the agent was in the room, and when the caller heard it."""
    times: dict[str, float] = {}
    with suppress(AssertionError):
        times["joined"] = (await caller.event("joined", kind="agent", deadline=PATIENCE))["at"] - begin
        times["heard"] = (await caller.event("heard", deadline=PATIENCE))["at"] - begin
        await caller.hang_up()
    return times


async def a_stream(kind: str, rate: float, seconds: float, idle: int, seed: int) -> dict[str, Any]:
    """Rooms that are dispatched at random, without callers: from each dispatch to its agent in the room."""
    load, steal = os.getloadavg()[0], stolen_and_all()
    arrivals, at = random.Random(seed), 0.0
    async with a_server() as server, a_worker(kind, server, idle), server.api() as api:

        async def a_call(room: str) -> float | None:
            begin = time.time()
            await api.dispatch(NAME, room)
            give_up = time.monotonic() + PATIENCE
            while not (present := await api.participants(room)):
                if time.monotonic() > give_up:
                    return None
                await asyncio.sleep(0.25)
            await asyncio.sleep(CALL_SECONDS)
            await api.delete_room(room)
            return present[0].joined_at_ms / 1000 - begin

        idle_before, begin, calls = idle_and_all(), time.monotonic(), []
        while (at := at + arrivals.expovariate(rate)) < seconds:
            await asyncio.sleep(max(begin + at - time.monotonic(), 0))
            calls.append(asyncio.create_task(a_call(f"room-{len(calls)}")))
        await asyncio.sleep(max(begin + seconds - time.monotonic(), 0))
        busy = busy_since(idle_before)
        times = await asyncio.gather(*calls)
    joined = sorted(each for each in times if each is not None)
    machine = {"load": load, "steal": steal_since(steal), "busy": busy}
    return {
        "worker": kind,
        "rate": rate,
        "seconds": seconds,
        **machine,
        "joined": joined,
        "not_taken": times.count(None),
    }


async def rate_for(busy: float, idle: int) -> float:
    """How many rooms a second take this part of the CPUs with livekit-agents' worker, by a trial."""
    trial = await a_stream("livekit-agents", 1.0, TRIAL_SECONDS, idle, seed=0)
    calls = len(trial["joined"]) + trial["not_taken"]
    return round(busy * calls / TRIAL_SECONDS / trial["busy"], 2)


def busy_since(before: tuple[int, int]) -> float:
    """Part of the CPUs' time since then that was used."""
    idle, everything = (now - then for now, then in zip(idle_and_all(), before, strict=True))
    return 1 - idle / max(everything, 1)


def sorted_out(seen: list[dict[str, float]]) -> dict[str, Any]:
    times = {what: sorted(times[what] for times in seen if what in times) for what in TIMES}
    return {"not_taken": sum(not times for times in seen), **times}


async def a_loss(kind: str, sign: signal.Signals, idle: int) -> dict[str, Any]:
    """Of two workers one begins to drain, or is killed; rooms are dispatched in that moment."""
    async with a_server() as server, AsyncExitStack() as stack:
        lost, _ = [await stack.enter_async_context(a_worker(kind, server, idle)) for _ in range(2)]
        api = await stack.enter_async_context(server.api())
        callers = await call_in(server, stack, ROOMS_AFTER_LOSS)
        begin = time.monotonic()
        os.kill(lost, sign)
        await asyncio.gather(*(api.dispatch(NAME, room) for room in callers))
        seen = await asyncio.gather(*(see(caller, begin) for caller in callers.values()))
    return {"worker": kind, "loss": sign.name, **sorted_out(seen)}


async def call_in(server: LiveKitServer, stack: AsyncExitStack, rooms: int) -> dict[str, Caller]:
    """One caller in each room, who waits."""
    callers = {}
    for name in (f"room-{number}" for number in range(rooms)):
        caller = Caller(server.url, server.tokens.caller("ann", name), muted=True)
        callers[name] = await stack.enter_async_context(caller)
    for caller in callers.values():
        await caller.connected()
    await asyncio.sleep(1.0)  # their own start is not to be measured
    return callers


async def see(caller: Caller, begin: float) -> dict[str, float]:
    """When the agent's entrypoint ran, when it was in the room, when the caller heard its answer."""
    times: dict[str, float] = {}
    with suppress(AssertionError):  # nobody came, or it came to no answer
        joined = await caller.event("joined", kind="agent", deadline=PATIENCE)
        times["joined"] = joined["at"] - begin
        await caller.say(440)
        attributes = await caller.attributes(joined["identity"], "entered")
        times["entered"] = float(attributes["entered"]) - begin
        times["picked up"] = float(attributes["picked_up"])
        heard = await caller.event("heard", identity=joined["identity"], deadline=PATIENCE)
        times["heard"] = heard["at"] - begin
        await caller.hang_up()  # twenty calls that go on are more than two cores can carry
    return times


async def at_rest(kind: str, idle: int) -> dict[str, Any]:
    """What a worker with idle processes, and nothing to do, takes."""
    async with a_server() as server, a_worker(kind, server, idle) as pid:
        await asyncio.sleep(5.0)
        before = cpu_seconds(family(pid))
        await asyncio.sleep(CPU_SECONDS)
        there = family(pid)
        return {
            "worker": kind,
            "idle": idle,
            "cpu_percent": round(100 * (cpu_seconds(there) - before) / CPU_SECONDS, 2),
            "private_mb": round(sum(map(private_mb, there)), 1),
            "idle_process_mb": round(statistics.median(map(private_mb, idle_processes(there))), 2),
            "processes": len(there),
        }


def family(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        found += proc.children(parent)
    return found


def idle_processes(pids: list[int]) -> list[int]:
    """Below a zygote or a forkserver, which has more children than anybody else."""
    return max((proc.children(pid) for pid in pids), key=len)


def cpu_seconds(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def tree_seconds(pid: int) -> float:
    """CPU time of a process and of all below it, also of those that have ended and were reaped."""
    ticks = 0
    for each in family(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def private_mb(pid: int) -> float:
    try:
        return proc.private_mb(pid)
    except OSError:
        return 0.0


async def measure(parts: list[str], rounds: int, sizes: list[int], idle: int) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []

    async def in_turn(a_round: Callable[[str, int], Awaitable[dict[str, Any]]], rounds: int = rounds) -> None:
        for number in range(rounds):
            for kind in WORKERS:
                results.append(await a_round(kind, number))
                print(json.dumps(results[-1]), file=sys.stderr)

    if "rest" in parts:
        await in_turn(lambda kind, _: at_rest(kind, idle), rounds=1)
    for size in sizes:
        if "bursts" in parts:
            await in_turn(lambda kind, _, size=size: a_round(kind, size, idle))
        if "alone" in parts and size > 1:
            await in_turn(lambda kind, _, size=size: a_quiet_round(kind, size, idle))
        if "greeting" in parts and size <= MOST_GREETED:
            await in_turn(lambda kind, _, size=size: a_greeting(kind, size, idle))
    if "stream" in parts:
        rate = await rate_for(BUSY, idle)
        await in_turn(lambda kind, seed: a_stream(kind, rate, STREAM_SECONDS, idle, seed))
    if "losses" in parts:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            await in_turn(lambda kind, _, sign=sign: a_loss(kind, sign, idle))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rooms", type=int, nargs="+", default=[1, 10, 20])
    parser.add_argument("--idle", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, default=rooms_report.LATEST)
    arguments = parser.parse_args()
    begun, about = time.monotonic(), {"machine": facts()}
    results = asyncio.run(measure(arguments.parts, arguments.rounds, arguments.rooms, arguments.idle))
    about |= {"command": " ".join(["python -m benchmarks.rooms", *sys.argv[1:]]), "idle": arguments.idle}
    report.write_json({**about, "minutes": (time.monotonic() - begun) / 60, "results": results}, arguments.json)
    print(rooms_report.markdown(report.read_json(arguments.json)))
    if arguments.json == rooms_report.LATEST:
        rooms_report.render()


if __name__ == "__main__":
    main()
