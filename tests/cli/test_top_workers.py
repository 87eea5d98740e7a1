"""`greenroom top` with several workers: merged lists, jobs with the same id, and workers that go away and come back."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable

import pytest
from commands import GREENROOM
from faults.stage import Stage, Visit
from hypothesis import given
from hypothesis import strategies as st
from pictures import NOW, board, picture_of, session, watched_of
from server.running_worker import RunningWorker
from terminal import Terminal

from greenroom.cli.text import clock
from greenroom.cli.top.draw import Scene, draw
from greenroom.cli.top.listing import Found, JobRef, Listing
from greenroom.cli.top.plain import as_plain
from greenroom.cli.top.watched import Watched

MakeApp = Callable[[str], str]

APP = """
@app.entrypoint
async def entrypoint(ctx):
    while (order := await on_stage("job", ctx.job.id)) != "leave":
        print(order, flush=True)
"""
ENTER, ESCAPE, TAB = "\r", "\x1b", "\t"


def two_workers() -> list[Watched]:
    return [watched_of(picture_of(running=2, idle=3), "blue"), watched_of(picture_of(running=1), "red")]


def lines_of(watched: list[Watched], width: int = 120, height: int | None = None) -> list[str]:
    return [line.plain for line in draw(watched, Scene(NOW, width, height, last_line="keys"))]


async def says(visit: Visit, words: str, stage: Stage) -> Visit:
    """Have a job print these words, and return its next visit."""
    visit.order(words)
    return await stage.next("job")


@pytest.mark.more
async def test_two_workers_in_one_view(make_app: MakeApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    options = ("--num-idle-processes", "1")
    async with Stage(make_app) as stage:
        app = stage.app(APP)
        blue = RunningWorker(app, "--worker-name", "blue", "--port", port, *options)
        async with blue, RunningWorker(app, "--worker-name", "red", *options) as red:
            visits = []
            for worker in (blue, red):
                await worker.start(id="call")
                visits.append(await stage.next("job"))
            urls = f"{await blue.url()},{await red.url()}"
            async with Terminal(GREENROOM, "top", "--url", urls, columns=120, lines=24) as terminal:
                await terminal.shows("^Greenroom  2 workers ")
                await terminal.shows("^blue +ready +jobs 1/100")
                await terminal.shows("^SESSION +WORKER +SOURCE")
                await terminal.shows("^call +blue +http +running.*\n^call +red +http +running")

                # Both jobs have the same id. Each act goes to the worker of the selected one.
                await says(visits[0], "words of blue", stage)
                terminal.press("jj" + ENTER + TAB)
                await terminal.shows("^── job call on worker red +running")
                visits[1] = await says(visits[1], "words of red", stage)
                await terminal.shows("stdout: words of red$")
                assert "words of blue" not in terminal.text
                visits[1].order("leave")
                await terminal.shows("^── job call on worker red +ended: succeeded")
                terminal.press(ESCAPE)
                await terminal.shows("^call +blue +http +running.*\n^call +red +http +succeeded")
                terminal.press("/state:ended" + ENTER)
                await terminal.shows("^── sessions 0  ended 1  filter: state:ended")
                terminal.press(ESCAPE)
                await terminal.shows("^── sessions 1  ended 1 ─")

                blue.signal(signal.SIGKILL)
                await terminal.shows("^Greenroom  2 workers, 1 without an answer")
                await terminal.shows("^blue +no answer since [0-9]{2}:[0-9]{2}:[0-9]{2}")
                await terminal.shows("^call +blue +http +no answer")
                await terminal.shows("^red +ready ")
                async with RunningWorker(app, "--worker-name", "blue", "--port", port, *options):
                    await terminal.shows("^blue +ready +jobs 0/100")
                    await terminal.shows("^── sessions 0  ended 1 ─")
                    terminal.press("q")
                    assert await terminal.ends() == 0


@pytest.mark.more
async def test_the_view_opens_if_one_worker_answers(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, RunningWorker(stage.app(APP), "--worker-name", "blue") as blue:
        silent = "http://127.0.0.1:9"
        async with Terminal(GREENROOM, "top", "--url", silent, "--url", await blue.url(), columns=120) as terminal:
            await terminal.shows(f"^{silent} +no answer since [0-9:]+: connection refused$")
            await terminal.shows("^blue +ready ")
            terminal.press("q")
            assert await terminal.ends() == 0


# --- what is drawn -------------------------------------------------------------------------------


def test_a_worker_is_lost_since_its_last_event() -> None:
    worker = Watched("blue")
    worker.lose("connection refused", NOW)
    worker.lose("no connection within 5 s", NOW + 5)
    assert worker.loss is not None
    assert worker.loss.text == f"no answer since {clock(NOW)}: no connection within 5 s"
    worker.hear("board", board(), NOW + 60)
    assert worker.loss is None
    worker.lose("", NOW + 70)
    assert worker.loss.text == f"no answer since {clock(NOW + 60)}"
    worker.lose("the token is wrong\x1b[2J", NOW + 80, is_refusal=True)
    assert worker.loss.text == f"refused since {clock(NOW + 60)}: the token is wrong\\x1b[2J"


def test_the_lists_of_all_workers_are_one() -> None:
    blue, red = two_workers()
    red.picture.apply("JobAccepted", {"job_id": "new", "source": "http", "launch_type": "warm", "at": NOW})
    red.picture.sessions["early"] = {**session("early", NOW - 50), "accepted": NOW - 100}
    listing = Listing.of([blue, red], None)
    assert listing.refs == [
        JobRef(0, "call-0"),
        JobRef(0, "call-1"),
        JobRef(1, "call-0"),
        JobRef(1, "new"),
        JobRef(0, "over"),
        JobRef(1, "over"),
        JobRef(1, "early"),
    ]
    assert [one["worker"] for one in listing.troubles] == [0, 1]
    job = {**session("call-0"), "state": "running", "worker": 1}
    found = Listing.of([blue, red], Found("words", {JobRef(1, "call-0"): job}, is_cut=False))
    assert found.refs == [JobRef(1, "call-0")]  # and not the job of the same id on the other worker
    assert found.troubles == []


def test_a_lost_worker_is_a_line_and_its_sessions_say_so() -> None:
    blue, red = two_workers()
    red.hear("Levels", {"stats": red.picture.stats, "problem": None}, NOW - 7)
    red.lose("connection refused", NOW)
    text = "\n".join(lines_of([blue, red]))
    assert text.startswith("Greenroom  2 workers, 1 without an answer   agent.py:app\n")
    assert f"\nred   no answer since {clock(NOW - 7)}: connection refused\n" in text
    assert "processes 5 " in text  # those of the other worker
    assert re.search("^call-0 +red +http +no answer ", text, re.MULTILINE)
    assert re.search("^call-0 +blue +http +running ", text, re.MULTILINE)
    blue.lose("connection refused", NOW)
    assert "processes 6 " in "\n".join(lines_of([blue, red]))


def test_workers_with_problems_are_shown_first_if_there_are_too_many() -> None:
    workers = [watched_of(picture_of(), f"worker-{number}") for number in range(30)]
    workers[20].picture.problem = "full"
    workers[25].lose("connection refused", NOW)
    lines = lines_of(workers, height=20)
    assert lines[1].startswith("worker-0 ")
    assert [line.split()[0] for line in lines[1:6]] == ["worker-0", "worker-1", "worker-20", "worker-25", "..."]
    assert lines[5] == "... and 26 more"
    assert sum("worker-" in line for line in lines_of(workers)[:31]) == 30


@given(
    width=st.integers(1, 200),
    height=st.integers(1, 60),
    count=st.integers(2, 12),
    lost=st.integers(0, 12),
    name=st.text(max_size=40),
)
def test_several_workers_fit_every_terminal(width: int, height: int, count: int, lost: int, name: str) -> None:
    workers = [watched_of(picture_of(running=3, idle=2), f"{name}{number}") for number in range(count)]
    for worker in workers[:lost]:
        worker.lose(name, NOW)
    lines = draw(workers, Scene(NOW, width, height, selected=JobRef(1, "call-2"), last_line="keys"))
    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)
    assert lines[-1].plain == "keys"[:width] or width < 4


def test_the_picture_of_several_workers_as_plain_data() -> None:
    blue, red = two_workers()
    green = Watched("http://green")
    green.lose("connection refused", NOW)
    replies = [{"worker": one.name, "url": "http://x", "error": None} for one in (blue, red, green)]
    plain = as_plain([blue, red, green], replies, NOW)
    assert [one["ready"] for one in plain["workers"]] == [True, True, None]
    assert plain["workers"][0].keys() == plain["workers"][2].keys()
    assert [(one["worker"], one["id"]) for one in plain["sessions"]] == [
        ("blue", "call-0"),
        ("blue", "call-1"),
        ("red", "call-0"),
    ]
    assert [one["worker"] for one in plain["troubles"]] == ["blue", "red"]
    assert len(plain["processes"]) == 6
    assert as_plain([blue], replies[:1], NOW) == blue.picture.as_plain(NOW)
