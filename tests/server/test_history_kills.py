"""A worker that is killed under load: what had ended is in the history, and what ran was lost with the worker."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import aiohttp
import pytest
from running_worker import RunningWorker
from support import DEADLINE, eventually

from greenroom import ExitReport, Timings
from greenroom.server.history.record import Record
from greenroom.server.history.rows import LOST, row_of
from greenroom.server.history.store import HistoryStore

MakeApp = Callable[[str], str]
pytestmark = [pytest.mark.more, pytest.mark.in_pairs]  # twenty calls a second take half a CPU

APP = """
@app.entrypoint
async def entrypoint(ctx):
    print("my last words")
    await asyncio.sleep(ctx.job.metadata["seconds"])
"""
PER_SECOND = 20
PROMISE = 1.0
"""Seconds after its end, or its start, from which on a call is on disk."""
ENOUGH = 25
"""Calls of each kind that a kill needs."""


class Calls:
    """Twenty calls a second: most last a moment, and each fifth lasts until the worker is killed."""

    def __init__(self, worker: RunningWorker, name: str) -> None:
        self.started: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        """When the test knew of the start, and of the end, by job id."""
        self._worker = worker
        self._name = name
        self._lateness = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        caller = asyncio.create_task(self._call_on())
        try:
            yield
        finally:
            caller.cancel()
            await asyncio.gather(caller, *self._tasks, return_exceptions=True)

    def before(self, times: dict[str, float], moment: float) -> list[str]:
        """Return the calls of which the worker knew long enough before a moment.

        On a busy machine, the worker may be as late as this process was.
        """
        return [job_id for job_id, at in times.items() if moment - at > PROMISE + 2 * self._lateness]

    def are_enough(self) -> bool:
        """Return true if a kill at this moment shows something."""
        now = time.monotonic()
        stay = [job_id for job_id in self.before(self.started, now) if self.stays(job_id)]
        return len(self.before(self.ended, now)) >= ENOUGH and len(stay) >= ENOUGH // 5

    @staticmethod
    def stays(job_id: str) -> bool:
        return job_id.endswith("-stays")

    async def _call_on(self) -> None:
        number, due = 0, time.monotonic()
        while True:
            task = asyncio.create_task(self._call(number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number, due = number + 1, max(due + 1 / PER_SECOND, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            self._lateness = max(self._lateness, time.monotonic() - due)

    async def _call(self, number: int) -> None:
        stays = number % 5 == 0
        job_id = f"{self._name}-{number}{'-stays' if stays else ''}"
        with suppress(aiohttp.ClientError):  # the kill
            answer = await self._worker.post({"seconds": 3600 if stays else 0.2}, id=job_id)
            if answer.status != 201:
                return  # there was no room for it
            self.started[job_id] = time.monotonic()
            if not stays and (await self._worker.report(job_id))["outcome"] == "succeeded":
                self.ended[job_id] = time.monotonic()


async def kill_under(calls: Calls, worker: RunningWorker) -> float:
    """Kill the worker in the middle of its calls, and return the time."""
    await eventually(calls.are_enough, "calls that have ended, and calls that run", DEADLINE * 2)
    at = time.monotonic()
    worker.signal(signal.SIGKILL)
    await worker.exit_code()
    return at


async def account(worker: RunningWorker, calls: Calls, killed_at: float) -> None:
    """Check what the next worker knows of the calls."""
    ended, running = calls.before(calls.ended, killed_at), calls.before(calls.started, killed_at)
    assert ended
    assert running
    for job_id in ended:
        found = await worker.get(f"/v1/jobs/{job_id}")
        assert (found.status, found.body.get("outcome")) == (200, "succeeded"), (job_id, found)
    for job_id in set(running) - set(calls.ended):
        found = await worker.get(f"/v1/jobs/{job_id}")
        assert found.status == 200, (job_id, found)
        # A short one may have ended in the last second.
        assert found.body["cause"] == LOST or (found.body["outcome"] == "succeeded" and not calls.stays(job_id)), found


async def knows_the_past(worker: RunningWorker, calls: Calls) -> None:
    """Wait until the worker has opened the file."""
    job_id = next(iter(calls.ended))
    await worker.until(f"/v1/jobs/{job_id}", lambda answer: answer.status == 200)


async def test_two_kills_in_a_row_lose_no_call_that_had_ended(make_app: MakeApp, tmp_path: Path) -> None:
    app, path = make_app(APP), tmp_path / "history.db"
    options = ("--history", str(path), "--num-idle-processes", "4", "--max-jobs", "500", "--rate-limit", "off")
    before: list[tuple[Calls, float]] = []
    for life in range(3):
        async with RunningWorker(app, *options) as worker:
            await worker.url()
            for calls, killed_at in before:
                await knows_the_past(worker, calls)
                await account(worker, calls, killed_at)
            if life == 2:
                break
            calls = Calls(worker, f"life-{life}")
            async with calls.going_on():
                before.append((calls, await kill_under(calls, worker)))
    assert _integrity(path) == "ok"


# --- while old jobs are removed -------------------------------------------------------------------

MANY = 20_000
FEW = 2_000
"""Jobs that fit into the largest size of these tests, with some to spare."""


@pytest.mark.parametrize("option", [("--history-mb", "4"), ("--history-days", "7")])
async def test_a_kill_while_old_jobs_are_removed_loses_no_call(
    make_app: MakeApp, tmp_path: Path, option: tuple[str, str]
) -> None:
    """The history is too large, or too old. The kill hits before it is small enough."""
    app, full, path = make_app(APP), tmp_path / "full.db", tmp_path / "history.db"
    await _fill(full, time.time() - (30 * 86_400 if "days" in option[0] else 3600))
    options = ("--history", str(path), *option, "--num-idle-processes", "4", "--max-jobs", "500", "--rate-limit", "off")
    for _ in range(10):  # a machine that is busy may remove all before the kill: then again
        shutil.copy(full, path)
        async with RunningWorker(app, *options) as worker:
            await worker.url()
            calls = Calls(worker, "call")
            async with calls.going_on():
                killed_at = await kill_under(calls, worker)
        left = _old_ones(path)
        assert left < MANY, "nothing was removed before the kill"
        assert _integrity(path) == "ok"
        if left > FEW:
            break
        _remove(path)
    assert left > FEW, "all was removed before each kill"
    async with RunningWorker(app, *options) as worker:
        await worker.url()
        await knows_the_past(worker, calls)
        await account(worker, calls, killed_at)
        await eventually(lambda: _old_ones(path) <= FEW, "the rest of the removal")


async def _fill(path: Path, begin: float) -> None:
    store = HistoryStore(path, days=1e6, megabytes=4096)
    store.start()
    for start in range(0, MANY, 200):
        store.write([row_of(_old(number, begin), begin, 0) for number in range(start, start + 200)])
        await eventually(lambda: store.waiting < 10, "rows in the file")
    await store.close()
    assert store.dropped == 0
    assert _old_ones(path) == MANY


def _old(number: int, begin: float) -> Record:
    at = begin + number / 100
    record = Record(f"old-{number}", "http", {}, at, at, {"caller": f"+1555{number}"})
    record.ended, times = at + 1, Timings(at, at, at, at + 1)
    record.report = ExitReport("succeeded", "completed", "x" * 1500, times, job_id=record.id)
    return record


def _old_ones(path: Path) -> int:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as file:
        return int(file.execute("SELECT count(*) FROM jobs WHERE id LIKE 'old-%'").fetchone()[0])


def _integrity(path: Path) -> str:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as file:
        return str(file.execute("PRAGMA integrity_check").fetchone()[0])


def _remove(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()
