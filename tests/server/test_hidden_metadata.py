"""With ``shown_metadata``, nothing else of the metadata is in anything that a worker writes, byte by byte."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from receiver import Receiver, receiving
from running_worker import RunningWorker
from support import eventually

from greenroom.server.history.record import Record
from greenroom.server.history.rows import row_of
from greenroom.server.history.store import HistoryStore

MakeApp = Callable[[str], str]

SECRET, OPEN = b"swordfish", b"blue-hall"
APP = """
@app.request
async def request(request):
    return request.job.id != "unwanted" or greenroom.Reject("no, thanks")

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.id == "raises":
        raise KeyError("menu")
    if ctx.job.id in ("stays", "is-cancelled", "is-killed"):
        await asyncio.sleep(3600)
    return "done"
"""
METADATA: list[Any] = [
    {"caller": "swordfish", "room": "blue-hall", "swordfish": 1, "deep": {"room": "swordfish", "list": ["swordfish"]}},
    "swordfish",
    ["swordfish", {"room": "swordfish"}],
]
STAY = ("stays", "is-cancelled", "is-killed")
JOBS = (*STAY, "returns", "raises")
CALLS = (*JOBS, "other-0", "other-1")
PAGES = ("/", "/calls", "/calls/stays", "/page/board.js", "/page/calls.js", "/page/call.js")
API = (
    "/v1/jobs",
    "/v1/jobs?q=swordfish",
    "/v1/jobs?q=caller:swordfish",
    "/v1/jobs?q=room:blue-hall",
    "/v1/board",
    "/v1/pool",
    "/v1/debug/recording",
    "/pressure",
    "/readyz",
    "/metrics",
    *(f"/v1/jobs/{job}{part}" for job in JOBS for part in ("", "/log", "/life")),
)
SHOWING = {"/v1/jobs", "/v1/board", "/v1/jobs/stays", "events", "history.db-wal"}
"""Where metadata that may be shown must be, so that this test would find it."""


@pytest.mark.parametrize(
    ("shown", "log_format"),
    [
        ("none", "human"),
        ("room", "json"),
        pytest.param("none", "json", marks=pytest.mark.more),
        pytest.param("room", "human", marks=pytest.mark.more),
        pytest.param("all", "json", marks=pytest.mark.more),
    ],
)
async def test_nothing_of_hidden_metadata_is_anywhere(
    make_app: MakeApp, tmp_path: Path, shown: str, log_format: str
) -> None:
    options = ("--history", str(tmp_path / "history" / "history.db"), "--shown-metadata", shown)
    options += ("--log-level", "debug", "--log-format", log_format, "--max-jobs", str(len(STAY)))
    options += ("--flight-recorder-dir", str(tmp_path / "recorder"))
    (tmp_path / "recorder").mkdir()
    app, found = make_app(APP), dict[str, bytes]()
    async with receiving() as (receiver, environment):
        environment["OTEL_BSP_SCHEDULE_DELAY"] = "100"
        async with RunningWorker(app, *options, env=environment) as worker, events_of(worker) as events:
            await serve_all_kinds(worker)
            await until_on_disk(tmp_path, CALLS)  # else the kill below loses the last moments
            found |= await answers(worker)
            found |= files(tmp_path)
            async with events_of(worker) as later:
                found["events"] = bytes(events + later)
            found |= {"traces": await traces(receiver), "log": log_of(worker)}
            worker.signal(signal.SIGKILL)
            await worker.exit_code()
        found |= {f"killed: {name}": data for name, data in files(tmp_path).items()}
        async with RunningWorker(app, *options, env=environment) as worker:
            await worker.until("/v1/jobs/stays", lambda answer: answer.status == 200)
            found |= {f"next: {name}": data for name, data in (await answers(worker)).items()}
            worker.signal(signal.SIGTERM)
            await worker.exit_code()
            found |= {"next: log": log_of(worker)} | {f"next: {name}": data for name, data in files(tmp_path).items()}
    assert all(found[name] for name in ("events", "traces", "log", "history.db", "/metrics"))
    expected = {"none": (False, False), "room": (False, True), "all": (True, True)}[shown]
    for text, is_shown in zip((SECRET, OPEN), expected, strict=True):
        where = {name for name, data in found.items() if text in data}
        assert where >= SHOWING if is_shown else not where, (text, where)
        # What an operator may see is neither logged, nor counted, nor traced, nor in the recording.
        never = (
            "traces",
            "metrics",
            "recording",
            "pool",
            *(() if shown == "room" else ("log",)),
        )  # keys that are named
        assert not [name for name in where if name.endswith(never)]


async def serve_all_kinds(worker: RunningWorker) -> None:
    """Have calls that end in each way, calls that are rejected in each way, and requests that are wrong."""
    metadata = METADATA[0]
    for name in STAY:
        await worker.start(metadata, id=name)
    assert (await worker.post(metadata, id="too-many")).status == 503
    assert (await worker.post(metadata, id="stays")).status == 409
    assert (await worker.ask("POST", "/v1/jobs", json={"metadata": metadata, "timeout": "swift"})).status == 400
    await worker.ask("DELETE", "/v1/jobs/is-cancelled")
    await worker.report("is-cancelled")
    os.kill((await worker.get("/v1/jobs/is-killed")).body["pid"], signal.SIGKILL)
    await worker.report("is-killed")
    for name in ("returns", "raises"):
        await worker.report((await worker.start(metadata, id=name))["id"])
    assert (await worker.post(metadata, id="unwanted")).status == 403
    for number, other in enumerate(METADATA[1:]):
        await worker.report((await worker.start(other, id=f"other-{number}"))["id"])


async def answers(worker: RunningWorker) -> dict[str, bytes]:
    return {path: (await worker.fetch("GET", path)).text.encode() for path in (*API, *PAGES)}


def files(folder: Path) -> dict[str, bytes]:
    """Return all files of the history and of the flight recorder."""
    paths = [path for name in ("history", "recorder") for path in (folder / name).rglob("*") if path.is_file()]
    return {path.name: path.read_bytes() for path in paths}


def log_of(worker: RunningWorker) -> bytes:
    return "\n".join(worker.lines).encode()


async def traces(receiver: Receiver) -> bytes:
    """Return all that was sent, once the spans of the calls that have ended are there."""
    await eventually(lambda: receiver.of("other-1"), "the spans of the last call")
    return b"".join(receiver.bodies)


@asynccontextmanager
async def events_of(worker: RunningWorker) -> AsyncIterator[bytearray]:
    """Read the stream of events meanwhile, from its first ``board`` on."""
    read = bytearray()

    async def follow() -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        with suppress(aiohttp.ClientError):
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{await worker.url()}/v1/events") as stream,
            ):
                async for piece in stream.content.iter_any():
                    read.extend(piece)

    following = asyncio.create_task(follow())
    await eventually(lambda: b"\n\n" in read, "the board")
    try:
        yield read
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


# --- a setting that has changed -------------------------------------------------------------------


async def test_the_next_worker_removes_what_may_not_be_shown_any_more(make_app: MakeApp, tmp_path: Path) -> None:
    """From the file, its log and the pages that they replace, while the worker lives."""
    app, history = make_app(APP), ("--history", str(tmp_path / "history" / "history.db"))
    async with RunningWorker(app, *history) as worker:
        for name in JOBS:
            await worker.start(METADATA[0], id=name)
        await until_on_disk(tmp_path, JOBS)
        assert SECRET in files(tmp_path)["history.db-wal"]
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
    async with RunningWorker(app, *history, "--shown-metadata", "room") as worker:
        body = (await worker.until("/v1/jobs/stays", lambda answer: answer.status == 200)).body
        assert body["metadata"] == {"room": "blue-hall"}
        assert (await worker.get("/v1/jobs?q=swordfish")).body["jobs"] == []
        assert len((await worker.get("/v1/jobs?q=room:blue-hall")).body["jobs"]) == len(JOBS)
        assert not [name for name, data in files(tmp_path).items() if SECRET in data]


async def until_on_disk(folder: Path, jobs: tuple[str, ...]) -> None:
    """Wait until these calls, and no others, are in the file of the history."""

    def on_disk() -> set[str]:
        path = folder / "history" / "history.db"
        if not path.exists() or not path.stat().st_size:  # the worker makes it in a thread
            return set()
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as file:
            return {job_id for (job_id,) in file.execute("SELECT id FROM jobs")}

    await eventually(lambda: on_disk() == set(jobs), "all calls on disk")


async def test_nothing_is_shown_before_it_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A program that reads the file holds up the removal, and this is a failure with a warning."""
    path = tmp_path / "history.db"
    record = Record("job", "http", {}, 1.0, 1.0, METADATA[0])
    first = HistoryStore(path, days=1e6, megabytes=10)
    first.start()
    first.write([row_of(record, 1.0, 0)])
    await first.close()
    store = HistoryStore(path, days=1e6, megabytes=10, wanted=("none",))
    with reading(path):
        store.start()
        await eventually(lambda: store.is_failing, "the failure")
        assert await store.find("job") is None
    assert "may not be shown any more cannot be removed" in caplog.text
    await eventually(lambda: not store.is_failing, "the removal")
    found = await store.find("job")
    assert found is not None
    assert found.brief["metadata"] is None
    assert SECRET not in path.read_bytes()
    await store.close()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Read the file meanwhile, as any program may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("BEGIN")
        file.execute("SELECT count(*) FROM jobs").fetchone()
        yield
        file.execute("ROLLBACK")
