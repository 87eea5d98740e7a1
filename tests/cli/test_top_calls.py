"""`greenroom top` in a real terminal: one call with its report, log and stacks, and lists that a search filters."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import GREENROOM
from faults.stage import Stage
from server.running_worker import RunningWorker
from terminal import Terminal

MakeApp = Callable[[str], str]

APP = """
@app.entrypoint
async def entrypoint(ctx):
    match (ctx.job.metadata or {}).get("do"):
        case "raise":
            raise ValueError("a caller's \\x1b[31m text")
        case "talk":
            while (order := await on_stage("job", ctx.job.id)) != "leave":
                print(order, flush=True)
        case "hang":
            stand_still(ctx.job.id)

def stand_still(job_id):
    block_on_stage("job", job_id)
"""
ENTER, ESCAPE, TAB, END = "\r", "\x1b", "\t", "\x1b[F"


@asynccontextmanager
async def watching(
    make_app: MakeApp, *options: str, columns: int = 80, lines: int = 24
) -> AsyncIterator[tuple[RunningWorker, Stage, Terminal]]:
    async with (
        Stage(make_app) as stage,
        RunningWorker(stage.app(APP), *options) as worker,
        Terminal(GREENROOM, "top", "--url", await worker.url(), columns=columns, lines=lines) as terminal,
    ):
        await terminal.shows("arrows select")
        yield worker, stage, terminal


async def start(worker: RunningWorker, job_id: str, do: str, **metadata: Any) -> None:
    await worker.start({"do": do, **metadata}, id=job_id)


# --- one call ------------------------------------------------------------------------------------


async def test_a_call_that_failed_shows_its_cause_and_its_traceback(make_app: MakeApp) -> None:
    async with watching(make_app) as (worker, _, terminal):
        await start(worker, "bad", "raise")
        await terminal.shows("^bad .*failed, raised")
        terminal.press("j" + ENTER)
        await terminal.shows("^── job bad  ended: failed ─")
        await terminal.shows("^outcome +failed$")
        await terminal.shows("^detail +.*ValueError")
        await terminal.shows(r"^cause +failed, raised: ValueError at \w+\.py:\d+")
        await terminal.shows(r"ValueError: a caller's \\x1b\[31m text")
        terminal.press("s")
        await terminal.shows("The report has no stacks")
        terminal.press("c")
        await terminal.shows("job bad has ended")
        terminal.press(ESCAPE)
        await terminal.shows("^SESSION .*\n^bad ")
        terminal.press(ENTER)
        await terminal.shows("^outcome +failed$")
        terminal.press("q")
        assert await terminal.ends() == 0


async def test_the_log_of_a_live_call_is_followed_to_its_end(make_app: MakeApp) -> None:
    async with watching(make_app) as (worker, stage, terminal):
        await start(worker, "call", "talk")
        (await stage.next("job")).order("first \x1b[2J words")
        visit = await stage.next("job")
        await terminal.shows("^call .*running")
        terminal.press("j" + ENTER + TAB)
        await terminal.shows(r"stdout: first \\x1b\[2J words$")
        await terminal.shows("all rows, following")
        for number in range(40):
            visit.order(f"word {number}")
            visit = await stage.next("job")
        await terminal.shows("stdout: word 39$")
        # Besides the words, the log has lines of the worker about the job.
        end = await terminal.shows(r"rows (\d+) to (\d+) of (\d+), following$")
        first, last, total = map(int, end.groups())
        terminal.press("kkk")
        await terminal.shows(f"rows {first - 3} to {last - 3} of {total}$")
        visit.order("a word that is not seen yet")
        visit = await stage.next("job")
        await terminal.shows(f"rows {first - 3} to {last - 3} of {total + 1}$")
        terminal.press(END)
        await terminal.shows("not seen yet$")
        visit.order("leave")
        await terminal.shows("^── job call  ended: succeeded")
        await terminal.shows("^ report  log  stack   rows [0-9]+ to ([0-9]+) of \\1$")
        terminal.press("r")
        await terminal.shows("^reason +completed$")


async def test_the_stacks_of_a_call_that_hangs(make_app: MakeApp) -> None:
    async with watching(make_app, columns=200) as (worker, stage, terminal):
        await start(worker, "call", "hang")
        visit = await stage.next("job")
        await terminal.shows("^call .*running")
        terminal.press("j" + ENTER + "\x1b[D")  # left
        await terminal.shows("The stacks of this job were not taken")
        terminal.press("s")
        await terminal.shows("in stand_still$")
        await terminal.shows("^stacks at [0-9:]+")
        assert "job call  running" in terminal.text
        visit.order("leave")
        await terminal.shows("job call  ended: succeeded")
        assert "in stand_still" in terminal.text


@pytest.mark.more
async def test_the_stacks_in_the_report_of_a_call_that_was_killed(make_app: MakeApp) -> None:
    async with watching(make_app, "--stall-timeout", "1", columns=200) as (worker, stage, terminal):
        await start(worker, "call", "hang")
        await stage.next("job")
        await terminal.shows("^call .*killed, stalled")
        terminal.press("j" + ENTER + "s")
        await terminal.shows("stacks just before the kill")
        await terminal.shows("in stand_still$")


async def test_a_call_is_cancelled_where_it_is_shown(make_app: MakeApp) -> None:
    async with watching(make_app) as (worker, stage, terminal):
        await start(worker, "call", "talk")
        await stage.next("job")
        await terminal.shows("^call .*running")
        terminal.press("j" + ENTER)
        await terminal.shows("^state +running")
        terminal.press("cy")
        await terminal.shows("^detail +cancelled in greenroom top$")


async def test_a_call_of_a_worker_that_is_gone(make_app: MakeApp) -> None:
    async with watching(make_app) as (worker, stage, terminal):
        await start(worker, "call", "talk")
        await stage.next("job")
        await terminal.shows("^call .*running")
        terminal.press("j" + ENTER)
        await terminal.shows("^state +running")
        worker.signal(signal.SIGKILL)
        await terminal.shows("^── no connection, trying again; .*job call")
        await terminal.shows("^state +running")
        terminal.press(ESCAPE + "q")
        assert await terminal.ends() == 0


# --- the filter ----------------------------------------------------------------------------------


async def test_a_search_filters_live_and_ended_calls(make_app: MakeApp) -> None:
    async with watching(make_app) as (worker, stage, terminal):
        await start(worker, "ann", "talk", caller="+1555")
        visit = await stage.next("job")
        await start(worker, "bob", "raise", caller="+1555")
        await start(worker, "carl", "raise", caller="+1666")
        await terminal.shows("^── sessions 1  ended 2 ─")
        terminal.press("/caller:+15jk")
        await terminal.shows("^/caller:\\+15jk_$")
        terminal.press("\x7f\x7f*" + ENTER)
        await terminal.shows("^── sessions 1  ended 1  filter: caller:\\+15\\* ─")
        await terminal.shows("^ann .*\n^bob ")
        await terminal.shows_not("carl")
        await start(worker, "dora", "raise", caller="+1556")
        await terminal.shows("^ann .*\n^dora .*\n^bob ")
        visit.order("leave")
        await terminal.shows("^ann .*succeeded, completed")
        terminal.press("j" + END + ENTER)
        await terminal.shows("^── job bob ")
        terminal.press(ESCAPE)
        await terminal.shows("filter: caller")
        terminal.press(ESCAPE)
        await terminal.shows("^── sessions 0  ended 4 ─")
        await terminal.shows("^carl ")


async def test_words_that_mean_nothing_change_nothing(make_app: MakeApp) -> None:
    async with watching(make_app) as (worker, _, terminal):
        await start(worker, "ann", "raise", caller="+1555")
        await start(worker, "bob", "raise", caller="+1666")
        await terminal.shows("^── sessions 0  ended 2 ─")
        terminal.press("/+1555" + ENTER)
        await terminal.shows("filter: \\+1555 ─")
        await terminal.shows_not("^bob ")
        terminal.press("/ since:2x" + ENTER)
        await terminal.shows("^the filter stays as it was: '2x' is no time")
        assert re.search("filter: \\+1555 ─", terminal.text)
        assert not re.search("^bob ", terminal.text, re.MULTILINE)
        terminal.press("/")
        await terminal.shows("^/\\+1555 since:2x_$")
        terminal.press("\x15nobody" + ENTER)
        await terminal.shows("^no session matches$")


@pytest.mark.more
async def test_a_call_of_an_earlier_worker_is_found_in_the_history(make_app: MakeApp, tmp_path: Path) -> None:
    history = ("--history", str(tmp_path / "history.db"))
    async with Stage(make_app) as stage, RunningWorker(stage.app(APP), *history) as worker:
        await start(worker, "ann", "raise", caller="+1555")
        await worker.report("ann")
        worker.signal(signal.SIGTERM)
        await worker.ends()
    async with watching(make_app, *history) as (_, _, terminal):
        await terminal.shows("^── sessions 0 ─")
        terminal.press("/caller:+1555 outcome:failed" + ENTER)
        await terminal.shows("^ann +http +failed, raised")
        terminal.press("j" + ENTER)
        await terminal.shows("ValueError: a caller's")


async def test_a_call_and_a_filter_fit_a_small_terminal(make_app: MakeApp) -> None:
    async with watching(make_app, columns=40, lines=12) as (worker, stage, terminal):
        await start(worker, "call", "talk", caller="+1555")
        (await stage.next("job")).order("a long line " + "x" * 100)
        await stage.next("job")
        await terminal.shows("^call +running")
        terminal.press("j" + ENTER + "l")
        await terminal.shows("^x{40}$")
        assert len(terminal.text.splitlines()) == 12
        await terminal.shows("^ report  log  stack .*all rows, foll")
        terminal.resize(20, 6)
        await terminal.shows("^x{20}$")
        terminal.press(ESCAPE + "/" + "y" * 30 + "z")
        await terminal.shows("^y{18}z_$")
        terminal.resize(40, 12)
        terminal.press(ESCAPE)
        await terminal.shows("^call +running")
