"""Large images: ``python -m benchmarks.large_images``.

A bare fork of an image in small pages, and Greenroom with and without huge pages, take turns in each round. Each has a
process of its own. Then one pool with huge pages runs many sessions that sleep, and shows what its supervisor pays.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import facts, steal_since, stolen_and_all
from benchmarks.stats import median, percentile
from greenroom import ProcessPool
from greenroom.pool.events import Event, ProcessWarmed, ZygoteStarted
from greenroom.system import proc

_APP = """
import asyncio
import os

import greenroom

app = greenroom.App()
size = int(os.environ["IMAGE_MB"])


@app.preload
def preload():
    if os.environ["IMAGE_KIND"] == "objects":
        app.image = [{"number": number, "text": str(number)} for number in range(size * 3000)]
    elif size:
        app.image = bytearray(size << 20)
        for place in range(0, len(app.image), 4096):
            app.image[place] = 1


@app.entrypoint
async def entrypoint(ctx):
    await asyncio.sleep(ctx.job.metadata)
"""
_BARE = """
import gc, json, os, sys, time
os.environ.update(json.loads(sys.argv[1]))
sys.path.insert(0, sys.argv[2])
import image
image.app.preload_fn()
gc.collect()
gc.freeze()
taken = []
for _ in range(5):
    begin = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    taken.append((time.perf_counter() - begin) * 1000)
print(json.dumps({"fork_exit_ms": sorted(taken)[2]}))
"""
_KINDS = ("bare fork", "small pages", "huge pages")
_FORKS = 5
_LAUNCHES = 100
_WATCHED = 10.0
"""Seconds for which the supervisor is watched beside its sessions."""


def main() -> int:
    """Print the figures of all images."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_images")
    parser.add_argument("--images", default="0,100,1000,4000,100 objects", help="MiB of each image, and objects or not")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(asyncio.run(_one(*json.loads(options.one)))))
        return 0
    print(", ".join(f"{name} {value}" for name, value in facts().items()))
    for image in options.images.split(","):
        _compare(image.strip(), options.rounds, options.sessions)
    return 0


def _compare(image: str, rounds: int, sessions: int) -> None:
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in _KINDS}
    before = stolen_and_all()
    for number in range(rounds):
        for kind in _KINDS if number % 2 == 0 else reversed(_KINDS):
            found[kind].append(_measured(image, kind, 0))
    print(f"\n{image} MiB, medians of {rounds} rounds:")
    for kind, figures in found.items():
        medians = {name: median([one[name] for one in figures]) for name in figures[0]}
        print(f"  {kind}: " + ", ".join(f"{name} {value:.4g}" for name, value in medians.items()))
    if sessions:
        many = _measured(image, "huge pages", sessions)
        print(f"  {sessions} sessions: " + ", ".join(f"{name} {value:.4g}" for name, value in many.items()))
    print(f"  load {os.getloadavg()[0]:.1f}, {steal_since(before):.1%} of the CPU stolen")


def _measured(image: str, kind: str, sessions: int) -> dict[str, float]:
    size, _, shape = image.partition(" ")
    environment = {"IMAGE_MB": size, "IMAGE_KIND": shape}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "image.py").write_text(_APP)
        if kind == "bare fork":
            command = [sys.executable, "-c", _BARE, json.dumps(environment), folder]
        else:
            one = json.dumps([f"{folder}/image.py:app", kind == "huge pages", sessions])
            command = [sys.executable, "-m", "benchmarks.large_images", "--one", one]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, **environment})
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


async def _one(app: str, has_huge_pages: bool, sessions: int) -> dict[str, float]:
    started: list[ZygoteStarted] = []
    warmed: asyncio.Queue[ProcessWarmed] = asyncio.Queue()

    def note(event: Event) -> None:
        if isinstance(event, ZygoteStarted):
            started.append(event)
        elif isinstance(event, ProcessWarmed):
            warmed.put_nowait(event)

    options: dict[str, Any] = {
        "num_idle_processes": 1,
        "max_jobs": sessions + 10,
        "huge_pages_seconds": 10.0 if has_huge_pages else None,
        "shutdown_timeout": 1.0,
        "max_concurrent_prewarms": 4,
    }
    pool = ProcessPool(app, **options)
    pool.subscribe(note)
    async with pool:
        await warmed.get()
        if sessions:
            return await _beside_sessions(pool, sessions)
        return await _forks(pool, warmed, started)


async def _forks(pool: ProcessPool, warmed: asyncio.Queue[ProcessWarmed], started: list[ZygoteStarted]) -> Any:
    """Return the times of forks, and the time from the SIGKILL of a zygote to the next warm process."""
    forks, idles = [], []
    for _ in range(_FORKS):
        handle = await pool.launch(0.0, timeout=60)
        refill = await warmed.get()
        forks.append(refill.fork_seconds * 1000)
        idles.append((refill.fork_seconds + refill.prewarm_seconds) * 1000)
        await handle.wait()
        await asyncio.sleep(0.2)
    zygote = pool.stats().zygote_pid
    assert zygote is not None
    (idle,) = [info.pid for info in pool.processes if info.state == "idle"]
    assert idle is not None
    figures = {
        "fork_ms": median(forks),
        "idle_ms": median(idles),
        "zygote_rss_mb": proc.rss_mb(zygote),
        "idle_private_mb": proc.private_mb(idle),
        "page_tables_mb": proc.page_tables_mb(idle),
        "arrange_s": started[-1].huge_pages_seconds,
        "huge_mb": started[-1].huge_pages_mb,
    }
    os.kill(zygote, signal.SIGKILL)
    begin = time.monotonic()
    await pool.launch(0.0, timeout=60)  # takes the idle process, if there is one still
    await warmed.get()
    return {**figures, "replaced_s": time.monotonic() - begin}


async def _beside_sessions(pool: ProcessPool, sessions: int) -> dict[str, float]:
    """Return what the supervisor pays for sessions that sleep, and the latency of launches beside them."""
    handles = [await pool.launch(1000.0, timeout=60) for _ in range(sessions)]
    await asyncio.sleep(3.0)
    cpu, begin = time.process_time(), time.monotonic()
    await asyncio.sleep(_WATCHED)
    share = (time.process_time() - cpu) / (time.monotonic() - begin)
    longest = _LongestCallback()
    with longest:
        gap = await _longest_gap(_WATCHED)
    launches = []
    for _ in range(_LAUNCHES):
        begin = time.perf_counter()
        handle = await pool.launch(0.0, timeout=60)
        launches.append((time.perf_counter() - begin) * 1000)
        await handle.wait()
        await asyncio.sleep(0.05)
    for handle in handles:
        handle.cancel("measured")
    return {
        "supervisor_cpu_percent": 100 * share,
        "longest_callback_ms": longest.milliseconds,
        "longest_gap_ms": gap,
        "launch_p50_ms": median(launches),
        "launch_p99_ms": percentile(launches, 99),
    }


class _LongestCallback:
    """Watch of the event loop: the CPU time of the callback that took most."""

    def __init__(self) -> None:
        self.milliseconds = 0.0

    def __enter__(self) -> None:
        self._run = run = asyncio.Handle._run  # type: ignore[attr-defined]

        def timed(handle: asyncio.Handle) -> None:
            begin = time.thread_time()
            run(handle)
            self.milliseconds = max(self.milliseconds, (time.thread_time() - begin) * 1000)

        asyncio.Handle._run = timed  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._run  # type: ignore[attr-defined]


async def _longest_gap(seconds: float) -> float:
    """Return the longest time (ms) by which a wake-up of this loop was late, by the wall clock."""
    end, worst = time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        begin = time.perf_counter()
        await asyncio.sleep(0.005)
        worst = max(worst, time.perf_counter() - begin - 0.005)
    return worst * 1000


if __name__ == "__main__":
    sys.exit(main())
