"""The history of jobs: what is kept of each one, how it is found, and that it outlives the worker."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_worker import RunningWorker
from support import DEADLINE, eventually

from greenroom import ExitReport, OptionError, Timings
from greenroom.server.history.figures import MOST, Figures, Sample
from greenroom.server.history.lines import FIRST, FIRST_SIZE, LAST, LAST_SIZE, LONGEST_LINE, Lines
from greenroom.server.history.record import Record
from greenroom.server.history.rows import LOST, Row, row_of
from greenroom.server.history.search import parse
from greenroom.server.history.shown_metadata import fields_of, shown_metadata
from greenroom.server.history.store import HistoryStore

MakeApp = Callable[[str], str]
NOW = 1_000_000.0


# --- bounds ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 6000), max_size=700))
def test_the_first_and_the_last_lines_are_kept_within_bounds(sizes: list[int]) -> None:
    lines = Lines()
    for size in sizes:
        lines.add(NOW, "info", "app", "x" * size)
    kept = lines.after(0)
    numbers = [line.number for line in kept]
    assert lines.count == len(sizes)
    assert numbers == sorted(set(numbers))
    assert not sizes or numbers[-1] == len(sizes)
    assert len(kept) <= FIRST + LAST
    assert sum(len(line.text) for line in kept) <= FIRST_SIZE + LAST_SIZE + LONGEST_LINE + 100
    assert lines.left_out == len(sizes) - len(kept)
    missing = sorted(set(range(1, len(sizes) + 1)) - set(numbers))
    assert lines.dropped == ((missing[0], missing[-1]) if missing else None)


@given(st.integers(0, 5000))
def test_samples_are_thinned_and_the_latest_is_kept(count: int) -> None:
    figures = Figures()
    for number in range(count):
        figures.add(Sample(float(number), None, 0.0, None))
    kept = [sample.at for sample in figures.all()]
    assert len(kept) <= MOST + 1
    assert kept == sorted(kept)
    assert not count or (kept[0] == 0.0 and kept[-1] == count - 1)


# --- metadata -------------------------------------------------------------------------------------

PLAIN = {"caller": "+1555", "room": {"name": "hall"}, "secret": "swordfish"}


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (("all",), PLAIN),
        (("none",), None),
        (("caller",), {"caller": "+1555"}),
        (("caller", "room"), {"caller": "+1555", "room": {"name": "hall"}}),
        (("other",), None),
    ],
)
def test_only_the_wanted_metadata_is_shown(wanted: tuple[str, ...], shown: Any) -> None:
    assert shown_metadata(json.dumps(PLAIN).encode(), wanted) == shown


@pytest.mark.parametrize("text", [None, b"null", b"{", b"[" * 100_000, b'"' + b"x" * 100_000 + b'"', b"\xff"])
def test_metadata_that_cannot_be_shown_is_none(text: bytes | None) -> None:
    assert shown_metadata(text, ("all",)) is None
    assert shown_metadata(text, ("caller",)) is None


def test_keys_within_keys_can_be_searched() -> None:
    assert fields_of(PLAIN) == {"caller": "+1555", "room.name": "hall", "secret": "swordfish"}


# --- search ---------------------------------------------------------------------------------------


def a_record(number: int = 0, **changed: Any) -> Record:
    fields = {"caller": f"+1555{number:04d}", "room": "blue hall"}
    record = Record(f"job-{number}", "http", {}, NOW + number, NOW + number, {"caller": fields["caller"]})
    record.set_fields(fields)
    record.started, record.pid, record.process_id, record.generation = NOW + number, 77, "1-1", 1
    for name, value in changed.items():
        setattr(record, name, value)
    return record


def ended(record: Record, at: float, **changed: Any) -> Record:
    times = Timings(record.at, record.at, record.at, at)
    known: dict[str, Any] = {"outcome": "killed", "reason": "signaled", "detail": "SIGKILL from outside"} | changed
    record.ended, record.report = at, ExitReport(timings=times, job_id=record.id, **known)
    record.cause = "killed, signaled: SIGKILL"
    return record


SEARCHES = [
    ("", True),
    ("caller:+15550000", True),
    ("caller:+1555*", True),
    ("CALLER:+1555*", True),
    ("caller:+1556*", False),
    ('room:"blue hall"', True),
    ('room:"blue hal', False),
    ('room:"blue hall', True),
    ('"blue ha', True),
    ("blue", True),
    ("BLUE hall", True),
    ("job-0", True),
    ("outcome:killed", True),
    ("outcome:failed", False),
    ("reason:signaled source:http", True),
    ("state:ended", True),
    ("state:live", False),
    ("state:running", False),
    ("state:end*", False),
    ("since:1h", True),
    ("since:10s", False),
    ("until:10s", True),
    ("until:2h", False),
    ("at:13:45", False),
    ("at:13:46", True),
    ("at:13:47", True),
    ("at:13:48", False),  # this minute has not come, so that of the day before is meant
    ("at:13:47:10", True),
    ("at:13:47:11", False),
    ("at:13:46Z", True),
    ("at:14:46+01:00", True),
    ("at:1970-01-12t13:46", True),
    ("at:1970-01-11T13:46", False),
    ("at:1970-01-12T12:46-01:00", True),
    ("since:13:47", True),
    ("since:13:47:11", False),
    ("until:13:46", False),
    ("until:13:46:40", True),
    ("nobody", False),
    ("100%", False),
    ("b_ue", False),
]


@pytest.mark.parametrize(("query", "is_found"), SEARCHES)
async def test_memory_and_disk_find_the_same(query: str, is_found: bool, tmp_path: Path) -> None:
    record = ended(a_record(), NOW + 30)
    parsed = parse(query, NOW + 60)
    assert parsed.matches(record) == is_found
    store = a_store(tmp_path)
    store.write([row_of(record, NOW, 0)])
    await store.close()
    again = a_store(tmp_path)
    assert [found["id"] for found in await again.search(parsed, 10)] == (["job-0"] if is_found else [])
    await again.close()


@pytest.mark.parametrize(
    ("query", "utc_offset", "is_found"),
    [
        ("at:14:46", 3600.0, True),
        ("at:13:46", 3600.0, False),
        ("at:08:16", -19_800.0, True),
        ("at:1970-01-12T14:46", 3600.0, True),
        ("at:13:46Z", 3600.0, True),
        ("since:10s", 3600.0, False),
    ],
)
def test_a_time_is_that_of_the_readers_clock(query: str, utc_offset: float, is_found: bool) -> None:
    assert parse(query, NOW + 60, utc_offset).matches(ended(a_record(), NOW + 30)) == is_found


@pytest.mark.parametrize(
    "query", ["since:yesterday", "until:3", "since:h", "at:25:00", "at:1405", "at:14", "at:2026-13-01T00:00", "at:a:b"]
)
def test_a_search_that_cannot_be_read_is_an_error(query: str) -> None:
    with pytest.raises(OptionError):
        parse(query, NOW)


# --- the file -------------------------------------------------------------------------------------


def a_store(folder: Path, **options: Any) -> HistoryStore:
    store = HistoryStore(folder / "history.db", **({"days": 1e6, "megabytes": 512.0} | options))
    store.start()
    return store


async def test_a_job_is_found_with_its_lines_and_its_report(tmp_path: Path) -> None:
    store, record = a_store(tmp_path), a_record()
    record.lines.add(NOW, "info", "bot", "hello \ud800")
    store.write([row_of(record, NOW, 0)])
    record.lines.add(NOW + 1, "warning", "stdout", "bye")
    store.write([row_of(ended(record, NOW + 2, stack_dump="Thread"), NOW + 2, 1)])
    await store.close()
    again = a_store(tmp_path)
    found = await again.find("job-0")
    await again.close()
    assert found is not None
    assert [line.text for line in found.lines] == ["hello \\ud800", "bye"]
    assert found.report is not None
    assert (found.report["outcome"], found.report["stack_dump"]) == ("killed", "Thread")
    assert found.brief["metadata"] == {"caller": "+15550000"}


async def test_a_job_without_an_end_was_lost_with_its_worker(tmp_path: Path) -> None:
    store, record = a_store(tmp_path), a_record()
    record.lines.add(NOW, "info", "bot", "my last words")
    store.write([row_of(record, NOW + 7, 0)])
    await store.close()
    again = a_store(tmp_path)
    await eventually_found(again, "job-0", "cause", LOST)
    found = await again.find("job-0")
    await again.close()
    assert found is not None
    assert (found.brief["outcome"], found.brief["ended"]) == ("killed", NOW + 7)
    assert [line.text for line in found.lines] == ["my last words"]


async def eventually_found(store: HistoryStore, job_id: str, name: str, value: object) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        found = await store.find(job_id)
        if found is not None and found.brief[name] == value:
            return
    raise AssertionError(f"{job_id} has not {name} {value!r}: {found}")


async def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "history.db").write_bytes(b"no database at all " * 1000)
    store = a_store(tmp_path)
    store.write([row_of(ended(a_record(), NOW), NOW, 0)])
    await store.close()
    assert "is damaged" in caplog.text
    assert len(list(tmp_path.glob("history.db.damaged-*"))) == 1
    again = a_store(tmp_path)
    assert (await again.find("job-0")) is not None
    await again.close()


async def test_a_folder_that_cannot_be_written_costs_rows_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = HistoryStore(tmp_path / "file" / "history.db", days=1, megabytes=1)
    store.start()
    for number in range(3):
        store.write([row_of(ended(a_record(number), NOW), NOW, 0)])
    await store.close()
    assert store.dropped == 3
    assert caplog.text.count("cannot be written") == 1


async def test_what_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    """A disk that is full for a moment costs no end of a call."""
    store = a_store(tmp_path)
    await eventually((tmp_path / "history.db").exists, "the file")
    with closing(sqlite3.connect(tmp_path / "history.db", timeout=0, isolation_level=None)) as other:
        await eventually(lambda: _begins(other), "an exclusive lock on the file")
        store.write([row_of(ended(a_record(), NOW), NOW, 0)])
        await eventually(lambda: store.is_failing, "the failure")
        other.execute("ROLLBACK")
    store.write([row_of(ended(a_record(1), NOW), NOW, 0)])
    await store.close()
    assert (store.dropped, store.is_failing) == (0, False)
    assert sorted(_ids(tmp_path)) == ["job-0", "job-1"]


def _begins(file: sqlite3.Connection) -> bool:
    try:
        file.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    return True


async def test_the_file_is_for_the_worker_alone(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.write([row_of(a_record(), NOW, 0)])
    await eventually((tmp_path / "history.db-wal").exists, "the log of the file")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    await store.close()
    assert set(modes.values()) == {0o600}, modes


async def test_metadata_that_may_not_be_shown_any_more_is_removed(tmp_path: Path) -> None:
    record = ended(a_record(), NOW)
    record.metadata = {"caller": "+15550000", "room": "blue hall"}
    await written(tmp_path, [row_of(record, NOW, 0)])
    await written(tmp_path, [], wanted=("room",))
    store = a_store(tmp_path, wanted=("room",))
    await eventually(lambda: not store.waiting, "the file")
    found = await store.find("job-0")
    await store.close()
    assert found is not None
    assert found.brief["metadata"] == {"room": "blue hall"}
    assert b"+15550000" not in (tmp_path / "history.db").read_bytes()


async def test_two_workers_do_not_share_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = a_store(tmp_path)
    await eventually((tmp_path / "history.db").exists, "the file of the first worker")
    other = a_store(tmp_path)
    other.write([row_of(ended(a_record(), NOW), NOW, 0)])
    await other.close()
    await one.close()
    assert other.dropped == 1
    assert await other.find("job-0") is None  # the jobs of the other worker are not its own
    assert "another worker uses this file" in caplog.text


async def test_the_file_is_bounded_by_age_and_size(tmp_path: Path) -> None:
    """A worker looks at its start, and then once a minute."""
    old, young = ended(a_record(1, at=time.time() - 3 * 86_400), NOW), ended(a_record(2, at=time.time()), NOW)
    await written(tmp_path, [row_of(old, NOW, 0), row_of(young, NOW, 0)])
    store = a_store(tmp_path, days=2)
    await eventually(lambda: _ids(tmp_path) == ["job-2"], "the removal of the old one")
    await store.close()
    many = [ended(a_record(n, at=time.time() + n), NOW, detail="x" * 20_000) for n in range(3, 300)]
    await written(tmp_path, [row_of(record, NOW, 0) for record in many])
    assert len(_ids(tmp_path)) == 298
    store = a_store(tmp_path, megabytes=1)
    await eventually(lambda: len(_ids(tmp_path)) < 60, "the removal of most")
    await store.close()
    left = _ids(tmp_path)
    assert left
    assert left[-1] == "job-299"
    assert (tmp_path / "history.db").stat().st_size < 3 * 2**20


async def written(folder: Path, rows: list[Row], **options: Any) -> None:
    store = a_store(folder, **options)
    store.write(rows)
    await store.close()


def _ids(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "history.db")) as file:
        return [number for (number,) in file.execute("SELECT id FROM jobs ORDER BY at")]


# --- a worker -------------------------------------------------------------------------------------

APP = """
import logging

@app.entrypoint
async def entrypoint(ctx):
    m = ctx.job.metadata
    logging.getLogger("bot").warning("hello %s", m["caller"])
    print("on stdout")
    if m.get("block"):
        await asyncio.sleep(0.2)
        time.sleep(3600)
    if m.get("raise"):
        raise KeyError("menu")
    if m.get("stay"):
        await asyncio.sleep(3600)
    return "done"
"""


async def test_a_running_job_is_shown_with_all_that_is_known(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP)) as worker:
        job = await worker.start({"caller": "+15550199", "stay": True})
        path = f"/v1/jobs/{job['id']}"
        shown = (await worker.until(path, lambda answer: answer.body["memory_mb"] is not None)).body
        assert shown["metadata"] == {"caller": "+15550199", "stay": True}
        assert (shown["source"], shown["generation"], shown["is_stuck"]) == ("http", 1, False)
        assert shown["started"] >= shown["accepted"] > 0
        assert shown["cpu_seconds"] is not None
        assert shown["beat_age"] is not None
        log = (await worker.until(f"{path}/log", lambda answer: answer.body["count"] >= 3)).body
        assert {("bot", "hello +15550199"), ("stdout", "on stdout")} <= {(x["origin"], x["text"]) for x in log["lines"]}
        life = (await worker.get(f"{path}/life")).body
        assert [step["what"] for step in life["steps"]] == ["offered", "accepted", "started"]
        found = (await worker.get("/v1/jobs?q=caller:%2B1555*+state:live")).body["jobs"]
        assert [one["id"] for one in found] == [job["id"]]
        assert (await worker.get("/v1/jobs?q=caller:%2B1556*")).body["jobs"] == []
        assert (await worker.get("/v1/jobs?q=since:now")).error["type"] == "bad_search"


@pytest.mark.parametrize("options", [(), ("--stall-timeout", "off")])
async def test_a_blocked_job_is_stuck_and_its_stack_can_be_read(make_app: MakeApp, options: tuple[str, ...]) -> None:
    async with RunningWorker(make_app(APP), *options) as worker:
        job = await worker.start({"caller": "+1", "block": True})
        path = f"/v1/jobs/{job['id']}"
        await worker.until(path, lambda answer: answer.body["is_stuck"])
        for _ in range(2):
            stack = await worker.ask("POST", f"{path}/stack", json={})
            assert stack.status == 200
            assert "time.sleep" not in stack.body["stacks"]  # C functions have no frame
            assert "in entrypoint" in stack.body["stacks"]
        assert (await worker.get(path)).body["report"] is None  # it goes on
        assert (await worker.ask("POST", "/v1/jobs/unknown/stack", json={})).status == 404


async def test_the_stack_of_a_crash_is_in_report_and_log(make_app: MakeApp) -> None:
    source = """
    @app.entrypoint
    async def entrypoint(ctx):
        ctypes.string_at(0)
    """
    async with RunningWorker(make_app(source), "--log-format", "json") as worker:
        job = await worker.start()
        path = f"/v1/jobs/{job['id']}"
        ended = await worker.until(path, lambda answer: answer.body["state"] == "ended")
        assert ended.body["report"]["signal"] == signal.SIGSEGV
        assert "in entrypoint\n" in ended.body["report"]["stack_dump"]
        line = json.loads((await worker.logs('^.*"event": ?"process_ended".*$'))[0])
        assert line["stack"] == ended.body["report"]["stack_dump"]


async def test_the_stack_of_a_process_that_holds_the_gil_can_be_read(make_app: MakeApp) -> None:
    source = """
    @app.entrypoint
    async def entrypoint(ctx):
        ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the GIL
    """
    async with RunningWorker(make_app(source)) as worker:
        job = await worker.start()
        stack = await worker.ask("POST", f"/v1/jobs/{job['id']}/stack", json={})
        assert stack.status == 200, stack
        assert "in entrypoint" in stack.body["stacks"]


async def test_after_a_kill_of_the_worker_its_jobs_are_known(make_app: MakeApp, tmp_path: Path) -> None:
    app, history = make_app(APP), ("--history", str(tmp_path / "history.db"))
    async with RunningWorker(app, *history) as worker:
        done = await worker.start({"caller": "+15550001"})
        await worker.report(done["id"])
        failed = await worker.start({"caller": "+15550002", "raise": True})
        await worker.report(failed["id"])
        lost = await worker.start({"caller": "+15550003", "stay": True})
        await worker.until(f"/v1/jobs/{lost['id']}/log", lambda answer: answer.body["count"] >= 3)
        await eventually(lambda: _is_written(tmp_path / "history.db", lost["id"], failed["id"]), "all on disk")
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
    async with RunningWorker(app, *history, "--log-format", "json", "--shown-metadata", "caller") as worker:
        await worker.until(
            f"/v1/jobs/{lost['id']}", lambda answer: answer.status == 200 and answer.body["cause"] == LOST
        )
        log = (await worker.get(f"/v1/jobs/{lost['id']}/log")).body
        assert "hello +15550003" in [line["text"] for line in log["lines"]]
        report = (await worker.get(f"/v1/jobs/{failed['id']}")).body["report"]
        assert report["reason"] == "raised"
        assert "KeyError" in report["error"]["traceback"]
        found = (await worker.get("/v1/jobs?q=caller:%2B1555*")).body["jobs"]
        assert [one["id"] for one in found] == [done["id"], failed["id"], lost["id"]]
        assert (await worker.get("/v1/jobs")).body["jobs"] == []
        older = (await worker.get("/v1/jobs?older=true&limit=2")).body["jobs"]
        assert [one["id"] for one in older] == [failed["id"], lost["id"]]
        assert (await worker.get(f"/v1/jobs/{done['id']}/life")).body["steps"][-1]["what"] == "ended"
        line = json.loads((await worker.logs('^.*"event": "job_lost".*$'))[0])
        assert (line["job_id"], line["cause"], line["job_pid"]) == (lost["id"], LOST, lost["pid"])
        assert line["metadata"] == {"caller": "+15550003"}
        assert line["seen"] >= line["started"] > 0
        assert json.loads((await worker.logs('^.*"event": "jobs_lost".*$'))[0])["jobs"] == 1
        # Its id is one that workers make, so no client can give it to another job.
        assert (await worker.post({"caller": "+1"}, id=lost["id"])).status == 409


def _is_written(path: Path, *ids: str) -> bool:
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as file:
        found = {row[0] for row in file.execute("SELECT id FROM jobs JOIN lines ON lines.job = jobs.number")}
    file.close()
    return set(ids) <= found


async def test_a_full_disk_costs_records_and_no_job(make_app: MakeApp, tmp_path: Path) -> None:
    """The limit on the size of files stands for a full disk."""
    limit = ("prlimit", "--fsize=400000")
    history = ("--history", str(tmp_path / "history.db"))
    async with RunningWorker(make_app(APP), *history, wrapper=limit) as worker:
        number = 0
        while "greenroom_history_failing 0.0" in (await worker.fetch("GET", "/metrics")).text:
            job = await worker.start({"caller": f"+1555{number}", "text": "x" * 3000})
            assert (await worker.report(job["id"]))["outcome"] == "succeeded"
            number += 1
            assert number < 2000, "the disk should have been full by now"
        assert (await worker.report((await worker.start({"caller": "+1"}))["id"]))["outcome"] == "succeeded"
        assert len([line for line in worker.lines if "cannot be written" in line]) == 1


async def test_systemd_names_the_folder(make_app: MakeApp, tmp_path: Path) -> None:
    environment = {**os.environ, "STATE_DIRECTORY": f"{tmp_path / 'state'}:/other"}
    async with RunningWorker(make_app(APP), env=environment) as worker:
        await worker.url()
        await eventually((tmp_path / "state" / "history.db").exists, "the history in STATE_DIRECTORY")
