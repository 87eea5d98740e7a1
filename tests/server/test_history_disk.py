"""The history on a bad disk: calls are untouched, one warning is logged, and what is lost is counted."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from faulty_disk import FaultyDisk
from running_worker import RunningWorker
from support import DEADLINE, eventually

from greenroom.server.history.record import Record
from greenroom.server.history.rows import row_of
from greenroom.server.history.store import LONGEST_QUEUE, MOST_WAITING, HistoryStore

MakeApp = Callable[[str], str]

APP = """
@app.entrypoint
async def entrypoint(ctx):
    for number in range(100):
        print(number, "x" * 600)  # some 60 calls fill the write-ahead log, which then waits for the disk
    if ctx.job.metadata == "stay":
        await asyncio.sleep(3600)
    return "done"
"""
WARNING = "the history of jobs cannot be written"


async def a_call(worker: RunningWorker) -> str:
    """A call that must start and end as on any other disk."""
    job = await worker.start("short")
    assert (await worker.report(job["id"]))["outcome"] == "succeeded"
    return str(job["id"])


async def figure(worker: RunningWorker, name: str) -> float:
    text = (await worker.fetch("GET", "/metrics")).text
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


async def until_failing(worker: RunningWorker, wanted: float) -> None:
    async with asyncio.timeout(DEADLINE):
        while await figure(worker, "greenroom_history_failing") != wanted:
            await a_call(worker)  # the state changes with a write, and a write comes with a call


def warnings(worker: RunningWorker) -> list[str]:
    return [line for line in worker.lines if WARNING in line]


FAULTS = [("full", "disk is full"), ("readonly", "disk I/O error|unable to open"), ("slow", "not answered for 5 s")]


@pytest.mark.more
@pytest.mark.parametrize("when", ["from the start", "later"])
@pytest.mark.parametrize(("fault", "cause"), FAULTS)
async def test_calls_do_not_notice_a_bad_disk(
    make_app: MakeApp, tmp_path: Path, fault: str, cause: str, when: str
) -> None:
    """All calls of that time are in the history once the disk is well."""
    disk, path = FaultyDisk(tmp_path), tmp_path / "history.db"
    disk.set(fault if when == "from the start" else "")
    async with RunningWorker(make_app(APP), "--history", str(path), env=disk.environment) as worker:
        if when == "later":
            before = await a_call(worker)
            await eventually(lambda: _has(path, before), "the first call on disk")
            disk.set(fault)
        stay = await worker.start("stay")
        await until_failing(worker, 1.0)
        during = await a_call(worker)
        assert (await worker.get(f"/v1/jobs/{stay['id']}")).body["state"] == "running"
        await eventually(lambda: warnings(worker), "the warning, which comes with the next write")
        (warning,) = warnings(worker)
        assert re.search(cause, warning)
        disk.set("")
        await until_failing(worker, 0.0)
        await eventually(lambda: _has(path, during), "the call of that time on disk")
        assert await figure(worker, "greenroom_history_dropped_total") == 0
        assert warnings(worker) == [warning]


@pytest.mark.more
async def test_a_worker_ends_though_the_disk_does_not_answer(make_app: MakeApp, tmp_path: Path) -> None:
    disk = FaultyDisk(tmp_path)
    disk.set("slow")
    async with RunningWorker(make_app(APP), "--history", str(tmp_path / "history.db"), env=disk.environment) as worker:
        await a_call(worker)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0


async def test_a_path_that_cannot_be_written_costs_one_warning(make_app: MakeApp) -> None:
    """Nobody makes files in /proc, whoever runs the tests."""
    async with RunningWorker(make_app(APP), "--history", "/proc/history/history.db") as worker:
        await until_failing(worker, 1.0)
        for _ in range(3):
            await a_call(worker)
        assert len(warnings(worker)) == 1


async def test_rows_beyond_the_bound_are_dropped_and_counted(tmp_path: Path) -> None:
    disk = FaultyDisk(tmp_path)
    disk.set("full")
    command = [sys.executable, "-c", WRITES, str(tmp_path / "history.db"), str(MOST_WAITING + 300)]
    process = await asyncio.create_subprocess_exec(
        *command, env=disk.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    told, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    assert told.decode().split() == ["300", "True", str(MOST_WAITING + 300)]
    assert complaints.decode().count(WARNING) == 1


WRITES = """
import asyncio, logging, sys
from pathlib import Path
from greenroom.server.history.record import Record
from greenroom.server.history.rows import row_of
from greenroom.server.history.store import HistoryStore

async def main(path, count):
    store = HistoryStore(Path(path), days=1, megabytes=10)
    store.start()
    for start in range(0, count, 100):
        store.write([row_of(Record(f"job-{n}", "http", {}, n, n), n, 0) for n in range(start, start + 100)])
    while store.waiting:
        await asyncio.sleep(0.001)
    while store.dropped < count - 2000:
        await asyncio.sleep(0.001)
    print(store.dropped, store.is_failing)
    await store.close()
    print(store.dropped)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_batches_beyond_the_bound_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody takes them: the thread has not been started."""
    store, row = (
        HistoryStore(tmp_path / "history.db", days=1, megabytes=10),
        row_of(Record("job", "http", {}, 0.0, 0.0), 0.0, 0),
    )
    for _ in range(LONGEST_QUEUE + 7):
        store.write([row])
    assert (store.dropped, store.is_failing) == (7, True)
    assert caplog.text.count(WARNING) == 1


async def test_a_file_that_is_damaged_while_calls_run_is_set_aside(make_app: MakeApp, tmp_path: Path) -> None:
    """The worker finds it as soon as somebody looks for calls in the file."""
    path = tmp_path / "history.db"
    async with RunningWorker(make_app(APP), "--history", str(path)) as worker:
        before = await a_call(worker)
        await eventually(lambda: _has(path, before), "a call on disk")
        stay = await worker.start("stay")
        _damage(path)
        async with asyncio.timeout(DEADLINE):
            while not list(tmp_path.glob("history.db.damaged-*")):
                await worker.get("/v1/jobs?q=nobody")
                await a_call(worker)
        after = await a_call(worker)
        await eventually(lambda: _has(path, after), "a call in the new file")
        assert (await worker.get(f"/v1/jobs/{stay['id']}")).body["state"] == "running"
        assert len([line for line in worker.lines if "is damaged" in line]) == 1
        assert not warnings(worker)


def _damage(path: Path) -> None:
    """Overwrite all of a file and of its log, as a failing disk may."""
    for each in (path, path.with_name(f"{path.name}-wal")):
        with each.open("r+b") as file:
            file.write(b"\x5a" * each.stat().st_size)


def _has(path: Path, job_id: str) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as file:
            found = file.execute("SELECT 1 FROM jobs WHERE id = ? AND ended IS NOT NULL", (job_id,)).fetchone()
    except sqlite3.DatabaseError:
        return False  # it is damaged, or being made
    return found is not None
