"""`python -m benchmarks.history`: 100,000 calls in the history on disk, searches in them, and their price.

First the file is filled, and calls are searched and shown. Then workers with and without a history serve jobs, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from server.browser import open_page
from server.running_worker import RunningWorker

from benchmarks.machine import facts, steal_since, stolen_and_all
from benchmarks.stats import median, percentile
from greenroom import ExitReport, Timings
from greenroom.server.history.record import Record
from greenroom.server.history.rows import Row, row_of
from greenroom.server.history.search import parse
from greenroom.server.history.store import HistoryStore
from greenroom.system import proc

BATCH = 200
SEARCHES = 300
PAGES = 20


def a_row(number: int, now: float) -> Row:
    """A call with 20 lines and a report, one in a hundred of which has failed."""
    chance = random.Random(number)
    at = now - 5 * 86_400 * chance.random()
    fields = {"caller": f"+1555{number:07d}", "room": f"room-{chance.randrange(1000)}"}
    record = Record(f"job-{number:06d}", "http", {}, at, accepted=at, metadata=dict(fields), launch_type="warm")
    record.set_fields(fields)
    record.generation, record.process_id, record.pid, record.started, record.start_ms = 1, "1-1", 77, at, 1.2
    for line in range(20):
        record.lines.add(at + line, "info", "bot", f"turn {line}: the caller asks for the opening hours")
    record.ended = at + 60
    outcome, reason = ("failed", "raised") if number % 100 == 0 else ("succeeded", "completed")
    times = Timings(at, at, at, at + 60)
    record.report = ExitReport(outcome, reason, "the entrypoint returned", times, job_id=record.id)
    record.cause = f"{outcome}, {reason}"
    return row_of(record, now, 0)


async def fill(path: Path, calls: int) -> float:
    store = HistoryStore(path, days=7, megabytes=512)
    store.start()
    begin, now = time.monotonic(), time.time()
    for start in range(0, calls, BATCH):
        store.write([a_row(number, now) for number in range(start, min(start + BATCH, calls))])
        while store.waiting > 20:
            await asyncio.sleep(0.01)
    await store.close()
    assert store.dropped == 0
    return time.monotonic() - begin


async def ask(path: Path, calls: int) -> None:
    store = HistoryStore(path, days=7, megabytes=512)
    store.start()
    chance = random.Random(1)
    queries = {
        "by caller": lambda: f"caller:+1555{chance.randrange(calls):07d}",
        "by the beginning of a number": lambda: f"+1555{chance.randrange(calls):07d}"[:10],
        "by room and outcome": lambda: f"room:room-{chance.randrange(1000)} outcome:failed",
        "by a text anywhere": lambda: f"{chance.randrange(1000):03d}",
    }
    for name, query in queries.items():
        times = []
        for _ in range(SEARCHES if name != "by a text anywhere" else 20):
            begin = time.perf_counter()
            await store.search(parse(query(), time.time()), 100)
            times.append(1000 * (time.perf_counter() - begin))
        print(f"search {name}: p50 {median(times):.1f} ms, p99 {percentile(times, 99):.1f} ms")
    times = []
    for _ in range(SEARCHES):
        begin = time.perf_counter()
        assert await store.find(f"job-{chance.randrange(calls):06d}") is not None
        times.append(1000 * (time.perf_counter() - begin))
    print(f"one call with its log: p50 {median(times):.1f} ms, p99 {percentile(times, 99):.1f} ms")
    await store.close()


async def paint(folder: Path, path: Path, calls: int) -> None:
    """Open pages of calls in Chromium, each in a new tab, from a worker with the file."""
    app = folder / "shown.py"
    app.write_text(APP)
    chance, paints, shown = random.Random(2), [], []
    async with RunningWorker(f"{app}:app", "--history", str(path)) as worker, open_page(await worker.url()) as first:
        url = await worker.url()
        for _ in range(PAGES):
            page = await first.context.new_page()
            job = f"job-{chance.randrange(calls):06d}"
            begin = time.perf_counter()
            await page.goto(f"{url}/calls/{job}")
            await page.get_by_text("turn 19: the caller asks").first.wait_for()
            shown.append(1000 * (time.perf_counter() - begin))
            paints.append(await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            await page.close()
    print(f"page of a call, first contentful paint: p50 {median(paints):.0f} ms, worst of {PAGES} {max(paints):.0f} ms")
    print(f"page of a call, until its last log line is shown: p50 {median(shown):.0f} ms, worst {max(shown):.0f} ms")


APP = """
import asyncio, logging, greenroom
app = greenroom.App()

@app.entrypoint
async def entrypoint(ctx):
    log = logging.getLogger("bot")
    for number in range(5):
        log.info("turn %d", number)
    if ctx.job.metadata.get("stay"):
        await asyncio.sleep(3600)
"""
JOBS, LIVE, AT_ONCE = 300, 100, 8


async def price(folder: Path, name: str) -> dict[str, float]:
    """One worker: launches one after the other, then as many jobs as it can, then the memory beside 100 live calls."""
    app = folder / "priced.py"
    app.write_text(APP)
    history = str(folder / f"{time.monotonic_ns()}.db") if name == "with" else "off"
    options = ("--history", history, "--rate-limit", "off", "--max-jobs", "200", "--num-idle-processes", "8")
    async with RunningWorker(f"{app}:app", *options) as worker:
        await worker.until("/pressure", lambda answer: answer.body["idle"] >= 8)
        starts = []
        for number in range(JOBS):
            answer = await worker.post({"caller": f"+1555{number:07d}"})
            starts.append(answer.body["start_ms"])
            await worker.report(answer.body["id"])
        begin = time.monotonic()
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                await worker.start({"caller": f"+1666{number:07d}"})

        await asyncio.gather(*(one(number) for number in range(JOBS)))
        seconds = time.monotonic() - begin
        await asyncio.gather(*(worker.start({"caller": f"+1777{n:07d}", "stay": True}) for n in range(LIVE)))
        await asyncio.sleep(3.0)
        memory = proc.private_mb(worker.pid)
    return {"start p50 ms": median(starts), "jobs/s": JOBS / seconds, "supervisor MiB": memory}


def compare(rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for name in found if number % 2 == 0 else reversed(found):
                found[name].append(asyncio.run(price(Path(folder), name)))
    for figure in found["with"][0]:
        before, after = ([one[figure] for one in found[name]] for name in ("without", "with"))
        ratio = median([now / then for then, now in zip(before, after, strict=True)])
        print(f"{figure}: {median(before):.4g} without, {median(after):.4g} with, ratio of a round {ratio:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in facts().items()))
    before = stolen_and_all()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "history.db")
        seconds = asyncio.run(fill(path, options.calls))
        size = path.stat().st_size / 2**20
        each = 1024 * size / options.calls
        print(f"{options.calls} calls of 20 lines: {seconds:.0f} s, {size:.0f} MiB, {each:.1f} KiB each")
        asyncio.run(ask(path, options.calls))
        asyncio.run(paint(Path(folder), path, options.calls))
    compare(options.rounds)
    print(f"load {os.getloadavg()[0]:.1f}, {steal_since(before):.1%} of the CPU stolen")


if __name__ == "__main__":
    main()
