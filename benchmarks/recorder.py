"""The cost of the flight recorder: ``python -m benchmarks.recorder``.

Pools with and without it take turns (A B A B), each in a process of its own. CPU time of the supervisor says more than
wall time where the machine is shared. Then the cost of taking a pool's state, by its number of processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.machine import steal_since, stolen_and_all
from benchmarks.stats import median, percentile
from greenroom import ProcessPool
from greenroom.options import PoolOptions
from greenroom.pool.core import vocabulary as v
from greenroom.pool.core.core import PoolCore
from greenroom.pool.core.effective_options import EffectiveOptions
from greenroom.pool.flight_recorder.recorder import Recorder
from greenroom.pool.flight_recorder.state import capture
from greenroom.pool.flight_recorder.storage import Memory

_APP = """
import greenroom

app = greenroom.App()

@app.entrypoint
async def entrypoint(ctx):
    return None
"""
_SIZES = (20, 200, 1000)
_LANES = 4


def main() -> int:
    """Print the figures of all rounds, and their medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recorder")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--launches", type=int, default=300)
    parser.add_argument("--one", choices=("with", "without"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(asyncio.run(_measure(options.one == "with", options.launches))))
        return 0
    _states()
    asyncio.run(_share(options.launches))
    steal = stolen_and_all()
    found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    with suppress(KeyboardInterrupt):  # what is there by then is printed
        for number in range(options.rounds):
            names = list(found) if number % 2 == 0 else list(reversed(found))
            for name, figures in zip(names, [_one(name, options.launches) for name in names], strict=True):
                found[name].append(figures)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    for figure in found["with"][0]:
        before, after = ([one[figure] for one in found[name]] for name in ("without", "with"))
        ratio = median([now / then for then, now in zip(before, after, strict=True)])
        print(f"{figure}: {median(before):.4g} without, {median(after):.4g} with, ratio of a round {ratio:.3f}")
    load = os.getloadavg()[0]
    print(f"load {load:.1f}, {steal_since(steal):.1%} of the CPU stolen, {len(found['with'])} rounds of each")
    return 0


def _one(name: str, launches: int) -> dict[str, float]:
    """Return the figures of one pool, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.recorder", "--one", name, "--launches", str(launches)]
    output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    figures: dict[str, float] = json.loads(output)
    return figures


async def _share(launches: int) -> None:
    """Print the CPU time that the recorder takes of a pool's supervisor, where each event comes by itself."""
    spent = {"note": [0, 0], "flush": [0, 0]}
    for name, sums in spent.items():
        setattr(Recorder, name, _measured(getattr(Recorder, name), sums))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        app = Path(folder) / "recorded.py"
        app.write_text(_APP)
        async with ProcessPool(f"{app}:app", num_idle_processes=4, flight_recorder_dir=folder) as pool:
            for sums in spent.values():
                sums[:] = [0, 0]
            begin = _cpu()
            for _ in range(launches):
                await _warm_launch(pool)
            cpu = 1000 * (_cpu() - begin) / launches
    noted, written = (1e-6 * spent[name][0] / launches for name in spent)
    calls = " and ".join(f"{spent[name][1] / launches:.1f} of {name}()" for name in spent)
    print(
        f"of {cpu:.2f} ms of CPU for a job: {noted:.3f} ms to note its events, {written:.3f} ms to write them ({calls})"
    )


def _measured(act: Any, sums: list[int]) -> Any:
    """Return a function that adds up the CPU time of another one, and counts its calls."""

    def measured(*arguments: Any) -> None:
        begin = time.thread_time_ns()
        act(*arguments)
        end = time.thread_time_ns()
        sums[0] += 2 * end - begin - time.thread_time_ns()  # without a reading of the clock, which takes a part of it
        sums[1] += 1

    return measured


async def _measure(is_on: bool, launches: int) -> dict[str, float]:
    """Return the figures of one pool."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        app = Path(folder) / "recorded.py"
        app.write_text(_APP)
        size: dict[str, Any] = {"flight_recorder_mb": 8.0 if is_on else None}
        async with ProcessPool(f"{app}:app", num_idle_processes=4, flight_recorder_dir=folder, **size) as pool:
            for _ in range(20):
                await (await pool.launch()).wait()
            begin = _cpu()
            times = [await _warm_launch(pool) for _ in range(launches)]
            cpu = (_cpu() - begin) / launches
            begin_wall = time.perf_counter()
            await asyncio.gather(*(_lane(pool, launches // _LANES) for _ in range(_LANES)))
            rate = launches // _LANES * _LANES / (time.perf_counter() - begin_wall)
    return {
        "warm launch p50, ms": median(times),
        "warm launch p99, ms": percentile(times, 99),
        "one-shot jobs per second": rate,
        "CPU of the supervisor for a job, ms": 1000 * cpu,
    }


async def _warm_launch(pool: ProcessPool) -> float:
    """Return the milliseconds that a launch takes while processes are idle."""
    while pool.stats().idle < 4:
        await asyncio.sleep(0.001)
    begin = time.perf_counter()
    handle = await pool.launch()
    taken = 1000 * (time.perf_counter() - begin)
    await handle.wait()
    return taken


async def _lane(pool: ProcessPool, count: int) -> None:
    for _ in range(count):
        await (await pool.launch(timeout=60.0)).wait()


# --- the state -----------------------------------------------------------------------------------


def _states() -> None:
    """Print what it costs to take the state of pools of several sizes."""
    for size in _SIZES:
        core = _core(size)
        taken = min(_timed(lambda core=core: capture(core.pool)) for _ in range(20))
        turns: list[Any] = []
        recorder = Recorder(core, Memory(), 2**26, turns.append)
        slices = []
        while turns:
            slices.append(_timed(turns.pop(0)))
        parts = recorder.parts()
        used = sum(part.size for part in parts)
        for part in parts:
            os.close(part.fd)
        recorder.close()
        print(
            f"state of {size} processes with {size} jobs: {taken:.2f} ms to take, then slices of "
            f"{max(slices, default=0.0):.2f} ms at the most; {used / 1024:.0f} KiB"
        )


def _core(size: int) -> PoolCore:
    """Return a core in which so many jobs run."""
    core = PoolCore(
        EffectiveOptions(PoolOptions(num_idle_processes=0, max_jobs=size, max_concurrent_prewarms=size), frozenset())
    )
    core.handle(v.Open(), 0.0)
    core.handle(v.Tick(), 0.1)
    core.handle(v.LauncherSpawned(1, 1), 0.2)
    core.handle(v.LauncherLoaded(1, None, "digest"), 0.3)
    for number in range(size):
        core.handle(v.Launch(number, f"job-{number:012x}", b"metadata", 100.0, "http", {"room": f"room-{number}"}), 0.4)
    for process in list(core.pool.processes):
        core.handle(v.Forked(process, 1000), 0.5)
        core.handle(v.Hello(process), 0.6)
        core.handle(v.Warm(process, 0.01), 0.7)
        core.handle(v.Started(process, core.pool.processes[process].job.id), 0.8)  # type: ignore[union-attr]
    assert len(core.running_processes()) == size
    return core


def _timed(act: Any) -> float:
    """Return the milliseconds of CPU that something takes."""
    begin = time.thread_time()
    act()
    return 1000 * (time.thread_time() - begin)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
