"""The cost of the walls around sessions: ``python -m benchmarks.walls``.

Pools with and without walls take turns. Each runs one-shot jobs of an empty app, one after the other. Low percentiles
and CPU time say more than medians where the machine is shared.

The outer domain costs a process nothing of its own: it is inherited. It costs a pool a thread at its start, and a trial
of the walls: see the start of a pool, which has one figure for each round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from benchmarks.machine import steal_since, stolen_and_all
from benchmarks.stats import median, percentile
from greenroom import ProcessPool
from greenroom.pool.events import ProcessWarmed
from greenroom.system.heartbeat import HeartbeatPage, HeartbeatReader

_APP = """
import greenroom

app = greenroom.App()

@app.entrypoint
async def entrypoint(ctx):
    return None
"""
Figures = dict[str, list[float]]
MODES: tuple[Literal["off", "auto"], ...] = ("off", "auto")


async def a_round(app: str, walls: Literal["off", "auto"], jobs: int, found: Figures) -> None:
    """Run some jobs in a pool, and add their figures, in milliseconds."""
    begin = time.monotonic()
    async with ProcessPool(app, num_idle_processes=1, max_jobs=4, walls=walls) as pool:
        found["start of a pool"].append(1000 * (time.monotonic() - begin))
        warmed: asyncio.Queue[float] = asyncio.Queue()
        pool.subscribe(
            lambda event: warmed.put_nowait(event.refill_seconds) if isinstance(event, ProcessWarmed) else None
        )
        for _ in range(jobs):
            begin = time.monotonic()
            handle = await pool.launch(timeout=30.0)
            found["warm start"].append(1000 * (time.monotonic() - begin))
            report = await handle.wait()
            found["CPU of a process"].append(1000 * (report.cpu_seconds or 0.0))
            found["fork to idle"].append(1000 * await warmed.get())


def pages(count: int) -> tuple[float, float]:
    """Make heartbeat pages as supervisor and child do. Return the CPU µs of one, and the supervisor's fds for one."""
    fds, begin = len(os.listdir("/proc/self/fd")), time.thread_time()
    readers = []
    for _ in range(count):
        reader = HeartbeatReader()
        HeartbeatPage(reader.fd).beat_loop()
        os.close(reader.fd)
        readers.append(reader)
    open_fds = len(os.listdir("/proc/self/fd")) - fds
    for reader in readers:
        reader.close()
    return 1e6 * (time.thread_time() - begin) / count, open_fds / count


def main() -> int:
    """Print the figures of all rounds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walls")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=50)
    options = parser.parse_args()
    names = ("fork to idle", "CPU of a process", "warm start", "start of a pool")
    found: dict[str, Figures] = {mode: {name: [] for name in names} for mode in MODES}
    steal = stolen_and_all()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.py"
        path.write_text(_APP)
        for number in range(options.rounds):
            for mode in MODES if number % 2 == 0 else reversed(MODES):
                asyncio.run(a_round(f"{path}:app", mode, options.jobs, found[mode]))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    for name in names:
        without, with_walls = (found[mode][name] for mode in MODES)
        parts = [
            f"p{part} {percentile(without, part):.3f} and {percentile(with_walls, part):.3f}" for part in (10, 25, 50)
        ]
        difference = percentile(with_walls, 10) - percentile(without, 10)
        print(f"{name}, ms, without and with walls: {'; '.join(parts)}; difference of p10 {difference:+.3f}")
    without, with_walls = (median(found[mode]["CPU of a process"]) for mode in MODES)
    print(f"CPU of a process, ms: {with_walls - without:+.3f} by the medians")
    costs = [pages(100) for _ in range(10)]
    cost, fds = median([cost for cost, _ in costs]), max(fds for _, fds in costs)
    print(f"heartbeat page: {cost:.1f} µs of CPU, in supervisor and child together; {fds:g} fds in the supervisor")
    count, load = len(found["off"]["warm start"]), os.getloadavg()[0]
    print(f"{count} processes each, load {load:.1f}, {steal_since(steal):.1%} of the CPU stolen")
    return 0


if __name__ == "__main__":
    sys.exit(main())
