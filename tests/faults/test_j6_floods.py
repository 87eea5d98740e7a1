"""J6: a job writes faster than anybody reads, or logs what cannot be told. It ends normally; drops are counted."""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stage import Stage, assert_recovered
from support import DEADLINE, Kept, listening

from greenroom import ProcessPool

MakeApp = Callable[[str], str]

APP = """
import logging

logger = logging.getLogger("flood")
LINE = b"x" * 99 + b"\\n"

def write_lines(fd, megabytes):
    block = LINE * 10_000
    for _ in range(megabytes):
        data = memoryview(block)
        while data:
            data = data[os.write(fd, data):]

def print_lines(megabytes):
    for _ in range(megabytes * 10_000):
        print(LINE[:-1].decode())

def write_no_line(fd, megabytes):
    for _ in range(megabytes):
        data = memoryview(bytes(10**6))
        while data:
            data = data[os.write(fd, data):]

def log_records(count):
    for number in range(count):
        logger.info("record %d of a flood", number)

KINDS = {
    "stdout": lambda: write_lines(1, 100),
    "stderr": lambda: write_lines(2, 100),
    "print": lambda: print_lines(10),
    "no line": lambda: write_no_line(1, 500),  # more than is passed on in that time, also on a busy machine
    "log": lambda: log_records(100_000),
}

def for_ever(flag, flood):
    while not flag.is_set():
        flood()

FLOODS = [lambda: write_lines(1, 1), lambda: write_lines(2, 1), lambda: log_records(1000)]

@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    if ctx.job.metadata in KINDS:
        KINDS[ctx.job.metadata]()  # it blocks the loop
    elif ctx.job.metadata == "for ever":
        flag = threading.Event()
        floods = [asyncio.create_task(asyncio.to_thread(for_ever, flag, flood)) for flood in FLOODS]
        await on_stage("job")
        flag.set()
        await asyncio.gather(*floods)
    return "a result"
"""


@pytest.fixture
def passed() -> Iterator[Kept]:
    logger = logging.getLogger("greenroom.app")
    logger.propagate = False  # the rest of the test run need not keep it
    with listening(Kept(), logger.name) as handler:
        yield handler
    logger.propagate = True


@pytest.mark.parametrize(
    ("kind", "written"), [("stdout", 1_000_000), ("stderr", 1_000_000), ("print", 100_000), ("log", 100_000)]
)
async def test_J6_every_line_of_a_flood_is_passed_on_or_counted(
    make_app: MakeApp, passed: Kept, kind: str, written: int
) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        handle = await pool.launch(kind)
        report = await handle.wait()
        assert (report.outcome, report.reason, report.exit_code) == ("succeeded", "completed", 0)
        assert report.result == "a result"
        assert report.log_records_dropped > 0
        assert len(passed.records) > 0
        assert len(passed.records) + report.log_records_dropped == written
        assert {vars(record)["job_id"] for record in passed.records} == {handle.id}
        assert stage.starts() == {handle.id: 1}
        await assert_recovered(pool, 1)


async def test_J6_a_flood_without_a_line_end(make_app: MakeApp, passed: Kept) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        report = await (await pool.launch("no line")).wait()
        assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", "a result")
        assert report.log_records_dropped > 0
        assert max(len(record.getMessage()) for record in passed.records) < 20_000
        await assert_recovered(pool, 1)


async def test_J6_other_sessions_start_and_run_during_floods(make_app: MakeApp, passed: Kept) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(APP), num_idle_processes=2, max_idle_processes=2) as pool,
    ):
        floods = [await pool.launch("for ever") for _ in range(2)]
        visits = [await stage.next("job") for _ in floods]
        for _ in range(10):
            report = await (await pool.launch()).wait()
            assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", "a result")
            assert report.log_records_dropped == 0
        assert [flood.state for flood in floods] == ["running"] * 2
        for visit in visits:
            visit.order("leave")
        for flood in floods:
            report = await flood.wait()
            assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", "a result")
            assert report.log_records_dropped > 0
        await assert_recovered(pool, 2)


async def test_J6_a_job_is_not_kept_by_what_a_descendant_goes_on_writing(make_app: MakeApp, passed: Kept) -> None:
    source = """
import subprocess

@app.entrypoint
async def entrypoint(ctx):
    subprocess.Popen(["yes"], start_new_session=True)
    return "a result"
"""
    async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
        report = await (await pool.launch()).wait()
        assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", "a result")
        await assert_recovered(pool, 1)


LAST_WORDS = """
import logging

@app.entrypoint
async def entrypoint(ctx):
    await on_stage("job")
    for number in range(150):
        logging.error("last words %d", number)
    print("and a line without an end", end="", flush=True)
    os._exit(4)
"""


async def test_J6_the_last_words_of_a_job_are_all_passed_on(make_app: MakeApp, passed: Kept) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(LAST_WORDS), num_idle_processes=1) as pool:
        handle = await pool.launch()
        visit = await stage.next("job")
        dead = select.poll()
        dead.register(pidfd := os.pidfd_open(visit.pid), select.POLLIN)
        visit.order("speak")
        assert dead.poll(DEADLINE * 1000)  # this blocks the supervisor's loop: it reads when all is written
        os.close(pidfd)
        report = await handle.wait()
        assert (report.reason, report.exit_code, report.log_records_dropped) == ("exited", 4, 0)
        expected = {f"last words {number}" for number in range(150)} | {"and a line without an end"}
        assert {record.getMessage() for record in passed.records} == expected
        await assert_recovered(pool, 1)


# --- records that are hard to tell ---------------------------------------------------------------

RECORDS = """
import logging

class NotReplayable(Exception):
    def __init__(self, one, *, two):
        super().__init__()

class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")
    __repr__ = __str__

class Leaving(Exception):
    def __str__(self):
        raise SystemExit(9)

class Number(int):
    def __str__(self):
        raise RuntimeError("no number")
    __repr__ = __str__

def fail(error):
    try:
        raise error
    except type(error):
        logging.exception("%s failed", type(error).__name__)

@app.entrypoint
async def entrypoint(ctx):
    fail(NotReplayable(1, two=2))
    fail(Unspeakable())
    fail(Leaving())
    fail(ExceptionGroup("a group", [Unspeakable(), NotReplayable(1, two=2)]))
    logging.error("an argument that fails: %s", Unspeakable())
    logging.error(Unspeakable())
    logging.error("a format that does not fit: %d %d", "x")
    logging.error("not UTF-8: \\udcff")
    logging.error("nothing raised", exc_info=True)
    logging.error("wide: " + "\\u8a9e" * 16_000)
    logging.error("wider: " + "\\U0001f3ad" * 16_000)
    logging.error("long: " + "x" * 10_000_000)
    logging.log(Number(40), "a level of its own")
    logging.getLogger("a.\\udcff.name").error("a name of its own")
    logging.error("with a stack", stack_info=True)
    logging.error("lines\\nof\\x00bytes")
    return "a result"
"""
TOLD = [
    "NotReplayable failed",
    "Unspeakable failed",
    "Leaving failed",
    "ExceptionGroup failed",
    "an argument that fails: %s",
    "<Unspeakable>",
    "a format that does not fit: %d %d",
    "not UTF-8: ",
    "nothing raised",
    "wide: \u8a9e\u8a9e",
    "wider: \U0001f3ad\U0001f3ad",
    "long: xxx",
    "a level of its own",
    "a name of its own",
    "with a stack",
    "lines\nof",
]


async def test_J6_records_that_cannot_be_told_harm_nobody(make_app: MakeApp, tmp_path: Path, passed: Kept) -> None:
    path = tmp_path / "log"
    file = logging.FileHandler(path, encoding="utf-8")
    logger = logging.getLogger("greenroom.app")
    logger.addHandler(file)
    try:
        async with ProcessPool(make_app(RECORDS), num_idle_processes=1) as pool:
            report = await (await pool.launch()).wait()
            assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", "a result"), report
            await assert_recovered(pool, 1)
    finally:
        logger.removeHandler(file)
        file.close()
    messages = [record.getMessage() for record in passed.records]
    assert [told for told in TOLD if not any(message.startswith(told) for message in messages)] == []
    assert report.log_records_dropped == 1  # "long" was cut
    cut = [message for message in messages if message.endswith(" characters more)")]
    assert [message[:5] for message in cut] == ["long:"]
    written = path.read_text("utf-8")
    assert [told for told in TOLD if told not in written] == []
