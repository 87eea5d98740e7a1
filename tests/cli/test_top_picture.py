"""What events add up to in `greenroom top`, and how it is drawn: a thousand processes, and every size of terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from faults.stage import Stage
from hypothesis import given
from hypothesis import strategies as st
from pictures import NOW, board, picture_of, report, session, watched_of
from server.running_worker import RunningWorker

from greenroom.cli.client import Client
from greenroom.cli.top.draw import Scene, draw
from greenroom.cli.top.figures import percentile, shares
from greenroom.cli.top.listing import Found, JobRef
from greenroom.cli.top.picture import Picture
from greenroom.cli.top.watched import Watched

MakeApp = Callable[[str], str]


def shown(picture: Picture, scene: Scene) -> list[str]:
    return [line.plain for line in draw([watched_of(picture)], scene)]


# --- the picture ---------------------------------------------------------------------------------


def test_a_session_from_its_acceptance_to_its_end() -> None:
    picture = picture_of(idle=1)
    picture.apply("JobAccepted", {"job_id": "call", "source": "http", "launch_type": "warm", "at": NOW})
    assert [(one["id"], one["state"]) for one in picture.live_sessions()] == [("call", "waiting")]
    change = {"process_id": "1-0", "pid": 5000, "generation": 3, "job_id": "call", "at": NOW}
    picture.apply("ProcessChanged", {**change, "before": "idle", "after": "claimed"})
    assert picture.live_sessions()[0]["state"] == "claimed"
    started = {"job_id": "call", "process_id": "1-0", "pid": 5000, "launch_type": "warm", "start_seconds": 0.002}
    picture.apply("JobStarted", {**started, "at": NOW})
    picture.apply("ProcessChanged", {**change, "before": "claimed", "after": "running"})
    picture.apply("MemorySampled", {"process_id": "1-0", "private_mb": 7.0})
    (live,) = picture.live_sessions()
    assert (live["state"], live["pid"], live["start_ms"], live["private_mb"]) == ("running", 5000, 2.0, 7.0)
    ending = {"report": report(process_id="1-0"), "at": NOW + 3}
    picture.apply("ProcessEnded", ending)
    picture.apply("JobEnded", ending)
    assert picture.live_sessions() == []
    assert [one["id"] for one in picture.ended_sessions()] == ["call", "over"]
    assert picture.states() == {}
    assert [trouble["at"] for trouble in picture.troubles()] == [NOW + 3, NOW - 9]


def test_a_job_that_was_given_a_second_process_is_shown_with_that() -> None:
    picture = picture_of(running=1)
    other = {"process_id": "1-9", "pid": 9, "generation": 3, "before": "idle", "after": "claimed", "at": NOW}
    picture.apply("ProcessChanged", {**other, "job_id": "call-0"})
    assert picture.live_sessions()[0]["pid"] == 9


@pytest.mark.parametrize(
    ("outcome", "reason", "job_id", "is_trouble"),
    [
        ("succeeded", "completed", "call", False),
        ("cancelled", "cancelled", "call", False),
        ("cancelled", "drained", None, False),
        ("cancelled", "idle_expired", None, False),
        ("cancelled", "drained", "call", True),  # cut by a deploy
        ("killed", "cancelled", "call", True),  # it did not end after a hang-up
    ],
)
def test_an_end_that_is_expected_is_no_trouble(outcome: str, reason: str, job_id: str | None, is_trouble: bool) -> None:
    picture = picture_of()
    ended = report(outcome=outcome, reason=reason, job_id=job_id)
    picture.apply("ProcessEnded", {"report": ended, "at": NOW})
    assert len(picture.troubles()) == 1 + is_trouble  # one of before


def test_what_happens_around_the_processes_is_told() -> None:
    picture = picture_of()

    def incident(kind: str, after: float, *, is_bad: bool = True) -> dict[str, Any]:
        return {
            "at": NOW + after,
            "incident": {"at": NOW + after, "kind": kind, "cause": "why\nmore", "is_bad": is_bad},
        }

    lost = incident("zygote lost", 1)
    picture.apply("ZygoteLost", {"pid": 77, "generation": 3, "cause": "SIGKILL", **lost})
    assert picture.stats is not None
    assert picture.stats["zygote_pid"] is None
    picture.apply("ZygoteStarted", {"pid": 78, "generation": 4, "at": NOW + 2})
    assert (picture.stats["zygote_pid"], picture.stats["generation"]) == (78, 4)
    picture.apply("ReloadFailed", incident("reload failed", 3))
    picture.apply("BreakerChanged", incident("breaker open", 4))
    picture.apply("BreakerChanged", incident("breaker closed", 5, is_bad=False))
    picture.apply("SomethingOfTheFuture", {})
    kinds = ["breaker open", "reload failed", "zygote lost", "failed, raised"]
    assert [one["what"] for one in picture.troubles()] == kinds
    picture.apply("board", {**board(), "incidents": [lost["incident"]]})  # after a loss of the connection
    assert [one["what"] for one in picture.troubles()] == ["zygote lost", "failed, raised"]


def test_only_the_last_minute_counts_as_recently_turned_down() -> None:
    picture = picture_of()
    assert picture.turned_down(NOW) == {"full": 1}
    picture.apply("TurnedDown", {"at": NOW, "reason": "full"})
    assert picture.turned_down(NOW) == {"full": 2}
    assert picture.turned_down(NOW + 120) == {}


async def test_it_follows_a_real_worker(make_app: MakeApp) -> None:
    """The events have the fields that the picture reads, and add up to what the worker itself says."""
    async with Stage(make_app) as stage, RunningWorker(stage.app(), "--num-idle-processes", "2") as worker:
        picture = Picture()
        async with Client(await worker.url(), None) as client:
            events = client.events()
            picture.apply(*await anext(events))
            jobs = [await worker.start("stay") for _ in range(2)]
            (await stage.next("job")).order("leave")
            while len(picture.ended_sessions()) < 1 or picture.states() != {"running": 1, "idle": 2}:
                picture.apply(*await anext(events))
            (await stage.next("job")).order("leave")
            while picture.live_sessions() or picture.states() != {"idle": 2}:
                picture.apply(*await anext(events))
            await events.aclose()
            again = Picture()
            again.apply("board", (await client.get("/v1/board")).body)
        assert {one["id"] for one in picture.ended_sessions()} == {job["id"] for job in jobs}
        assert picture.processes.keys() == again.processes.keys()
        assert picture.start_ms() == again.start_ms()


# --- the drawing ---------------------------------------------------------------------------------


def test_a_thousand_processes_and_the_selected_session_among_them() -> None:
    picture = picture_of(running=1000, idle=8)
    lines = shown(picture, Scene(NOW, 80, 24, selected=JobRef(0, "call-700"), last_line="keys"))
    assert len(lines) == 24
    assert any("processes 1008  idle 8  running 1000" in line for line in lines)
    assert any("● = " in line for line in lines)
    assert any(line.startswith("call-700 ") for line in lines)
    assert any("of 1000" in line for line in lines)
    assert "jobs 1000/2000" in lines[1]
    assert len(shown(picture, Scene(NOW, 80, None))) > 1000


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 100),
    running=st.integers(0, 60),
    idle=st.integers(0, 400),
    selected=st.none() | st.sampled_from(["call-0", "call-40", "gone"]),
)
def test_it_fits_every_terminal(width: int, height: int, running: int, idle: int, selected: str | None) -> None:
    ref = None if selected is None else JobRef(0, selected)
    watched = watched_of(picture_of(running, idle))
    lines = draw([watched], Scene(NOW, width, height, selected=ref, last_line="keys"))
    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)
    assert lines[-1].plain == "keys"[:width] or width < 4


def test_what_an_app_writes_does_not_steer_the_terminal() -> None:
    picture = picture_of()
    picture.apply("ProcessEnded", {"report": report(detail="\x1b[2J\x07 boo\nsecond line"), "at": NOW})
    text = "\n".join(shown(picture, Scene(NOW, 200, None)))
    assert "\\x1b[2J\\x07 boo" in text
    assert "second line" not in text


@given(width=st.integers(1, 100), typed=st.text(max_size=120))
def test_the_end_of_typed_words_stays_in_sight(width: int, typed: str) -> None:
    last = draw([watched_of(picture_of())], Scene(NOW, width, 20, last_line="keys", typed=typed))[-1]
    assert last.cell_len <= width
    assert last.plain.endswith("_")


def test_the_title_shows_the_filter_and_whether_there_is_more() -> None:
    jobs = {JobRef(0, "over"): {**session("over"), "state": "ended", "worker": 0}}
    for is_cut, more in ((False, " \u2500"), (True, " (the latest 1) \u2500")):
        lines = shown(picture_of(running=2), Scene(NOW, 80, 20, found=Found("a\x1b[2J", jobs, is_cut)))
        assert any(f"sessions 0  ended 1  filter: a\\x1b[2J{more}" in line for line in lines)
    assert "no session matches" in shown(picture_of(running=2), Scene(NOW, 80, 20, found=Found("a", {}, is_cut=False)))


def test_before_the_pool_is_there_and_after_the_connection_is_lost() -> None:
    watched = Watched()
    watched.hear("board", {**board(), "stats": None, "problem": "warming"}, NOW)
    scene = Scene(NOW, 100, 20)
    assert "not ready: warming" in draw([watched], scene)[0].plain
    watched.lose("connection refused", NOW)
    assert "no connection" in draw([watched], scene)[0].plain


# --- sums ----------------------------------------------------------------------------------------


@given(counts=st.lists(st.integers(1, 2000), min_size=1, max_size=11), room=st.integers(11, 500))
def test_marks_fit_and_nobody_is_without_one(counts: list[int], room: int) -> None:
    marks, each = shares(counts, room)
    assert sum(marks) <= room
    assert all(mark >= 1 and mark * each >= count for mark, count in zip(marks, counts, strict=True))
    assert each == 1 or sum(counts) > room


def test_percentiles() -> None:
    assert percentile([], 0.5) is None
    assert percentile([4.0], 0.99) == 4.0
    assert percentile([float(n) for n in range(100)], 0.5) == 50.0
    assert percentile([float(n) for n in range(100)], 0.99) == 99.0
