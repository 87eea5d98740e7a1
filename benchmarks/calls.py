"""`python -m benchmarks.calls`: how many calls a machine carries, and what a worker does when it is full.

The same agent, unmodified, on one LiveKit server: Greenroom with and without its admission by CPU, and livekit-agents'
own worker with its default load threshold and without. One room is dispatched each second until enough are there, or
the worker has taken none for a while. Each call listens and speaks all the time, in frames of 20 ms, and counts those
that are done more than 20 ms late: see `agents/frames.py`. Nobody else is in the rooms. The LiveKit server, which
forwards nothing, shares the CPUs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from livekit.api import TwirpError

from benchmarks import report
from benchmarks.machine import facts, steal_since, stolen_and_all
from benchmarks.rooms import LiveKitServer, RunningWorker, StockWorker, a_server, family
from greenroom.system import proc

LATEST = report.LATEST.with_name("calls.json")
BEGIN, END = "<!-- begin: calls -->", "<!-- end: calls -->"
AGENT = Path(__file__).parent / "agents" / "frames.py"
NAME = "frames"
WORKERS = {
    "greenroom": {},
    "greenroom, max_cpu_wait_ms off": {"GREENROOM_MAX_CPU_WAIT_MS": "off"},
    "livekit-agents": {},
    "livekit-agents, load_threshold inf": {"THRESHOLD": "off"},
}
"""Workers with the environment that sets them apart. Both have max_jobs or what corresponds to it far above."""
GIVE_UP = 10
"""Rooms in a row that the worker does not take, after which no more are dispatched."""
HOLD = 15.0
"""Seconds for which the calls go on after the last room."""
START_UP = 4.0
"""Seconds of each call that are left out: an agent that starts up is not heard yet."""
FULL = 0.01
"""Part of the frames that may be late in a machine that carries its calls well."""
TWENTY = 20


@asynccontextmanager
async def a_worker(kind: str, server: LiveKitServer, idle: int, folder: Path) -> AsyncIterator[int]:
    environment = {"FRAMES": str(folder), **WORKERS[kind]}
    if kind.startswith("livekit-agents"):
        async with StockWorker(server, AGENT, agent_name=NAME, idle=idle, environment=environment) as stock:
            await stock.logs("registered worker")
            yield stock.pid
        return
    options = ("--livekit-agent-name", NAME, "--num-idle-processes", str(idle), "--max-jobs", "200")
    environment = {**os.environ, **server.environment, **environment}
    async with RunningWorker(str(AGENT), *options, env=environment) as worker:
        await worker.logs("registered as AW_")
        await worker.until("/v1/pool", lambda answer: answer.body["idle"] >= idle)
        yield worker.pid


async def a_round(kind: str, offered: int, idle: int) -> dict[str, Any]:
    """Fill the machine once with calls of one worker."""
    load, steal = os.getloadavg()[0], stolen_and_all()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with a_server() as server, a_worker(kind, server, idle, folder) as pid, server.api() as api:
            memory = None
            dispatched = taken = refused = 0
            while dispatched < offered and refused < GIVE_UP:
                with suppress(TwirpError):  # on a full machine, the LiveKit server itself takes no more rooms
                    await api.dispatch(NAME, f"room-{dispatched}")
                dispatched += 1
                await asyncio.sleep(1.0)
                there = len(list(folder.iterdir()))
                refused = 0 if there > taken else refused + 1
                taken = there
                if memory is None and taken >= TWENTY:
                    memory = sum(map(pss_mb, family(pid)))
            await asyncio.sleep(HOLD)
        calls = [seconds_of(path) for path in sorted(folder.iterdir())]
    figures = {"offered": dispatched, "calls": len(calls), "memory_of_20_mb": memory, **lateness(calls)}
    return {"worker": kind, "load": load, "steal": steal_since(steal), **figures}


Second = tuple[float, int, int]
"""Time, frames, and late frames of about a second of a call."""


def seconds_of(path: Path) -> list[Second]:
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [(line["at"], line["frames"], line["late"]) for line in lines]


def lateness(calls: list[list[Second]]) -> dict[str, Any]:
    """How late the calls were, and how many were carried well: the most at a time with 1 % of frames late."""
    settled = [[second for second in call if second[0] - call[0][0] >= START_UP] for call in calls if call]
    shares = sorted(share(call) for call in settled if call)
    at_a_time: dict[int, list[int]] = {}
    for call in settled:
        for at, frames, late in call:
            present = sum(other[0][0] <= at <= other[-1][0] + 1.0 for other in calls if other)
            counts = at_a_time.setdefault(present, [0, 0])
            counts[0], counts[1] = counts[0] + frames, counts[1] + late
    carried = [number for number in at_a_time if share_about(at_a_time, number) <= FULL]
    return {
        "carried": max(carried, default=0),
        "late": share([second for call in settled for second in call]),
        "late_p99": shares[min(int(len(shares) * 0.99), len(shares) - 1)] if shares else None,
    }


def share(seconds: list[Second]) -> float:
    return sum(late for _, _, late in seconds) / max(sum(frames for _, frames, _ in seconds), 1)


def share_about(at_a_time: dict[int, list[int]], number: int) -> float:
    """Late part of the frames while there were this many calls, or one or two fewer."""
    near = [at_a_time[each] for each in range(number - 2, number + 1) if each in at_a_time]
    return sum(late for _, late in near) / max(sum(frames for frames, _ in near), 1)


def pss_mb(pid: int) -> float:
    with suppress(OSError):
        return proc.memory_parts(pid).pss
    return 0.0


def markdown(results: report.Results) -> str:
    rows = [["worker", "calls taken", "carried well", "late frames, all / p99 of calls", "memory for 20", "steal"]]
    for kind in WORKERS:
        of_kind = [one for one in results["results"] if one["worker"] == kind]
        if of_kind:
            rows.append([kind, *_cells(of_kind)])
    return "\n\n".join([report.provenance(results), report.table(rows)])


def _cells(rounds: list[dict[str, Any]]) -> list[str]:
    memory = [one["memory_of_20_mb"] for one in rounds if one["memory_of_20_mb"] is not None]
    return [
        ", ".join(str(one["calls"]) for one in rounds),
        f"{statistics.median(one['carried'] for one in rounds):.0f}",
        ", ".join(f"{one['late']:.2%} / {one['late_p99']:.2%}" for one in rounds if one["late_p99"] is not None),
        f"{statistics.median(memory):,.0f} MiB" if memory else "fewer calls",
        ", ".join(f"{one['steal']:.1%}" for one in rounds),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--offered", type=int, default=60)
    parser.add_argument("--idle", type=int, default=3)
    parser.add_argument("--workers", nargs="+", choices=list(WORKERS), default=list(WORKERS))
    parser.add_argument("--json", type=Path, default=LATEST)
    arguments = parser.parse_args()
    begun, results = time.monotonic(), {"machine": facts()}
    results |= {"command": " ".join(["python -m benchmarks.calls", *sys.argv[1:]]), "results": []}
    for _ in range(arguments.rounds):
        for kind in arguments.workers:
            results["results"].append(asyncio.run(a_round(kind, arguments.offered, arguments.idle)))
            print(json.dumps(results["results"][-1]), file=sys.stderr)
    results["minutes"] = (time.monotonic() - begun) / 60
    report.write_json(results, arguments.json)
    print(markdown(report.read_json(arguments.json)))
    if arguments.json == LATEST:
        report.replace_between(BEGIN, END, markdown(report.read_json(LATEST)))


if __name__ == "__main__":
    main()
