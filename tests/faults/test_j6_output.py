"""J6: what a job prints and logs arrives whole, or says what is missing, and in time; floods of bytes are bounded."""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stage import Stage, assert_recovered
from support import DEADLINE, Kept, eventually, listening

from greenroom import ProcessPool
from greenroom.pool.shell.log_allowance import PROCESS_BYTES_AT_ONCE, LogAllowance
from greenroom.pool.shell.output import LogCapture, Outlet, StreamCapture

MakeApp = Callable[[str], str]


@pytest.fixture
def kept() -> Iterator[Kept]:
    with listening(Kept(), "greenroom") as handler:
        yield handler


async def run(make_app: MakeApp, body: str) -> Any:
    source = f"import json, logging\n\n@app.entrypoint\nasync def entrypoint(ctx):\n{body}"
    async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
        report = await (await pool.launch()).wait()
        assert report.outcome == "succeeded", report
        await assert_recovered(pool, 1)
        return report


# --- long lines and records ----------------------------------------------------------------------


async def test_J6_a_long_line_says_what_is_missing(make_app: MakeApp, kept: Kept) -> None:
    report = await run(make_app, "    print('P' * 100_000)\n    print('P' * 16_384)\n    print('last')")
    cut, whole, last = kept.lines()
    assert cut == "P" * 16_384 + f"… ({100_000 - 16_384} bytes more)"
    assert (whole, last) == ("P" * 16_384, "last")
    assert report.log_records_dropped == 1


RECORDS = """
    log = logging.getLogger("L" * 2000)
    log.info("M" * 100_000)
    log.info("x", extra={f"field{n}": n for n in range(50)})
    log.info("x", extra={"N" * 100: 1, "N" * 100 + "2": 2, "value": "V" * 10_000})
    try:
        raise ValueError("E" * 100_000)
    except ValueError:
        logging.exception("it failed")
    logging.info("\\x00" * 16_000, extra={f"f{n}": "\\x00" * 512 for n in range(32)})
"""


async def test_J6_a_long_record_says_what_is_missing(make_app: MakeApp, kept: Kept) -> None:
    report = await run(make_app, RECORDS)
    message, many, names, failure, controls = [record for record in kept.records if vars(record).get("stream") == "log"]
    assert message.getMessage() == "M" * 16_384 + f"… ({100_000 - 16_384} characters more)"
    assert vars(message)["app_logger"] == "L" * 512 + f"… ({2000 - 512} characters more)"
    assert vars(many)["fields"] == {f"field{n}": n for n in range(32)} | {"…": "18 fields more"}
    assert vars(names)["fields"] == {
        "N" * 64 + "… (36 characters more)": 1,
        "N" * 64 + "… (37 characters more)": 2,
        "value": "V" * 512 + "… (9488 characters more)",
    }
    assert re.search(r"^\(\d+ characters before\) …E+\n?$", failure.getMessage().partition("\n")[2])
    assert controls.getMessage().startswith("\x00" * 1000)
    assert controls.getMessage().endswith(" characters more)")
    assert report.log_records_dropped == 5


ODD_FIELDS = """
    import enum
    class Kind(enum.IntEnum):
        ONE = 1
    odd = {"nan": float("nan"), "minus": float("-inf"), "digits": 10**5000, "large": 2**70, "kind": Kind.ONE,
           "surrogate": "\\ud800", "\\udfff": 1, "nested": {"deep": [float("inf")]}}
    logging.info("odd", extra=odd)
"""


async def test_J6_fields_that_json_does_not_hold_become_text(make_app: MakeApp, kept: Kept) -> None:
    report = await run(make_app, ODD_FIELDS)
    (odd,) = [vars(record)["fields"] for record in kept.records if vars(record).get("stream") == "log"]
    assert odd == {
        "nan": "NaN",
        "minus": "-Infinity",
        "digits": "<int, not formatted: ValueError>",
        "large": str(2**70),
        "kind": 1,
        "surrogate": "\\ud800",
        "\\udfff": 1,
        "nested": "{'deep': [inf]}",
    }
    assert report.log_records_dropped == 0


async def test_J6_the_text_of_an_exception_says_what_is_missing(make_app: MakeApp) -> None:
    source = "@app.entrypoint\nasync def entrypoint(ctx):\n    raise type('T' * 300, (Exception,), {})('M' * 50_000)"
    async with ProcessPool(make_app(source), num_idle_processes=1) as pool:
        report = await (await pool.launch()).wait()
    assert report.error is not None
    assert report.error.type.endswith(" characters more)")
    assert report.error.message == "M" * 32_000 + "… (18000 characters more)"
    assert re.match(r"\(\d+ characters before\) …M", report.error.traceback)


# --- floods --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "stream"),
    [
        ("os.write(1, b'x' * 16_000 + b'\\n')", "stdout"),
        ("os.write(2, b'\\x00' * 16_000 + b'\\n')", "stderr"),
        ("logging.info('x' * 16_000)", "log"),
        ("logging.info('\\u00e4' * 16_000)", "log"),
    ],
)
async def test_J6_a_flood_of_bytes_is_bounded_and_told(make_app: MakeApp, kept: Kept, write: str, stream: str) -> None:
    report = await run(make_app, f"    for _ in range(1000):\n        {write}")
    passed = kept.lines(stream)
    assert len(passed) + report.log_records_dropped == 1000
    # As JSON, where a control character takes six bytes; what the allowance regains meanwhile is little.
    size = sum(len(ascii(text)) for text in passed)
    assert size < PROCESS_BYTES_AT_ONCE * 2
    told = [event["details"] for event in kept.of_event("output_dropped")]
    lost = sum(loss["lines"] for loss in told)
    assert lost <= report.log_records_dropped
    # A child drops records itself, if the supervisor is too busy to read them: then its allowance may suffice.
    assert lost > 0 or (stream == "log" and size < PROCESS_BYTES_AT_ONCE)
    assert sum(loss["bytes"] for loss in told) >= sum(loss["lines"] for loss in told) * 16_000
    assert {loss["process_id"] for loss in told} == {report.process_id}


async def test_J6_all_that_is_lost_of_a_stream_is_told(make_app: MakeApp, kept: Kept) -> None:
    report = await run(make_app, "    for _ in range(100):\n        os.write(1, b'\\n' * 65_536)")
    told = [event["details"] for event in kept.of_event("output_dropped")]
    assert sum(loss["lines"] for loss in told) == report.log_records_dropped > 6_000_000
    assert len(kept.lines()) + report.log_records_dropped == 100 * 65_536


async def test_J6_a_flood_of_the_zygote_is_bounded_and_told(make_app: MakeApp, kept: Kept) -> None:
    source = """
@app.preload
def preload():
    for _ in range(1000):
        print("x" * 16_000)

@app.entrypoint
async def entrypoint(ctx):
    pass
"""
    async with ProcessPool(make_app(source), num_idle_processes=1):
        await eventually(lambda: kept.of_event("output_dropped"), "the line that tells of the loss")
    told = [event["details"] for event in kept.of_event("output_dropped")]
    assert len(kept.lines()) + sum(loss["lines"] for loss in told) == 1000
    assert {loss["process_id"] for loss in told} == {"zygote-1"}


LAST_LINES = """
@app.entrypoint
async def entrypoint(ctx):
    await on_stage("job")
    for number in range(600):
        print("line", number)
    print("and a state\\rand the last one", end="", flush=True)
    os._exit(4)
"""


async def test_J6_the_last_lines_of_a_job_are_all_passed_on(make_app: MakeApp, kept: Kept) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(LAST_LINES), num_idle_processes=1) as pool:
        handle = await pool.launch()
        visit = await stage.next("job")
        dead = select.poll()
        dead.register(pidfd := os.pidfd_open(visit.pid), select.POLLIN)
        visit.order("speak")
        assert dead.poll(DEADLINE * 1000)  # this blocks the supervisor's loop: it reads when all is written
        os.close(pidfd)
        assert (await handle.wait()).log_records_dropped == 0
        lines = [line for line in kept.lines() if not line.endswith(" …")]
        assert lines == [*(f"line {number}" for number in range(600)), "and the last one"]


# --- progress, and lines without an end ----------------------------------------------------------

PROGRESS = """
@app.entrypoint
async def entrypoint(ctx):
    for n in range(1000):
        print(WRITE, end="", flush=True)
    await on_stage("job")
"""


@pytest.mark.parametrize("write", ["f'\\rprogress {n}'", "f'progress {n}\\r'", "f'\\x1b[2K\\rprogress {n}'"])
async def test_J6_progress_is_seen_while_it_runs_and_its_last_state_at_the_end(
    make_app: MakeApp, kept: Kept, write: str
) -> None:
    source = PROGRESS.replace("WRITE", write)
    async with Stage(make_app) as stage, ProcessPool(stage.app(source), num_idle_processes=1) as pool:
        handle = await pool.launch()
        visit = await stage.next("job")
        await eventually(lambda: any("progress 999" in line for line in kept.lines()), "the state that stands")
        assert all(line.endswith(" …") for line in kept.lines())
        assert len(kept.lines()) < 100
        visit.order("leave")
        report = await handle.wait()
        assert kept.lines()[-1].strip("\x1b[2K") == "progress 999"
        assert report.log_records_dropped == 0


PIECES = """
import sys

@app.entrypoint
async def entrypoint(ctx):
    sys.stdout.write("Loading")
    sys.stdout.flush()
    while (piece := await on_stage("job")) != "leave":
        os.write(1, bytes.fromhex(piece))
"""


async def test_J6_a_line_without_an_end_is_shown_when_it_stands_and_whole_when_it_ends(
    make_app: MakeApp, kept: Kept
) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(PIECES), num_idle_processes=1) as pool:
        handle = await pool.launch()
        visit = await stage.next("job")
        await eventually(lambda: kept.lines() == ["Loading …"], "what has come of the line")
        for piece in (" the", " model", "\r", "\n"):
            visit.order(piece.encode().hex())
            visit = await stage.next("job")
        await eventually(lambda: kept.lines()[-1] == "Loading the model", "the whole line")
        visit.order("leave")
        assert (await handle.wait()).log_records_dropped == 0
        assert kept.lines()[1:-1] in ([], ["Loading the …"], ["Loading the model …"])


async def test_J6_a_process_that_waits_without_output_has_no_timer(make_app: MakeApp, kept: Kept) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(PIECES), num_idle_processes=1) as pool:
        handle = await pool.launch()
        visit = await stage.next("job")
        await eventually(lambda: kept.lines() == ["Loading …"], "what has come of the line")
        await asyncio.sleep(0)
        loop: Any = asyncio.get_running_loop()
        timers = [repr(timer) for timer in loop._scheduled if not timer.cancelled()]
        name = StreamCapture._show_unfinished.__qualname__
        assert not [timer for timer in timers if name in timer], timers
        probe = loop.call_later(60, StreamCapture._show_unfinished)
        assert name in repr(probe)  # so that one would have been found
        probe.cancel()
        visit.order("leave")
        await handle.wait()


async def test_J6_packets_that_are_no_records_use_up_the_allowance() -> None:
    """Each costs a parse. Without room they are counted, and nobody looks into them."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    outlet = Outlet(lambda line: None, LogAllowance.of_pool())
    capture = LogCapture(near.fileno(), outlet, pytest.fail)
    sent = 0
    with near, far:
        async with asyncio.timeout(DEADLINE):
            while outlet.room():
                far.send(b"[" * 60_000)
                sent += 1
                await eventually(lambda count=sent: outlet.dropped == count)
        capture.finish()
    outlet.finish()
    assert sent >= PROCESS_BYTES_AT_ONCE // 60_000
