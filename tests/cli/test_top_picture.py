"""What events add up to in `greenroom top`, and how it is drawn: a thousand processes, and every size of terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from faults.stage import Stage
from hypothesis import given
from hypothesis import strategies as st
from server.running_worker import RunningWorker

from greenroom.cli.client import Client
from greenroom.cli.top.controls import Cancel, Controls, Quit
from greenroom.cli.top.draw import Scene, draw
from greenroom.cli.top.figures import percentile, shares
from greenroom.cli.top.keys import KeyDecoder
from greenroom.cli.top.picture import Picture

MakeApp = Callable[[str], str]

NOW = 1_800_000_000.0
STATS = {
    "jobs": 1000,
    "idle": 8,
    "idle_target": 10,
    "warming": 2,
    "waiting": 0,
    "generation": 3,
    "zygote_pid": 77,
    "breaker_cause": None,
}


def process(number: int, state: str, job_id: str | None = None) -> dict[str, Any]:
    known = {"id": f"1-{number}", "pid": 5000 + number, "state": state, "generation": 3}
    return {**known, "job_id": job_id, "since": NOW, "private_mb": 3.5}


def session(job_id: str, ended: float | None = None) -> dict[str, Any]:
    known = {"id": job_id, "source": "http", "launch_type": "warm", "accepted": NOW - 61, "started": NOW - 60}
    return {**known, "ended": ended, "start_ms": 1.5, "pid": 1, "process_id": "x", **end(ended)}


def end(ended: float | None) -> dict[str, Any]:
    return {"outcome": ended and "succeeded", "reason": ended and "completed", "detail": None}


def report(**given: Any) -> dict[str, Any]:
    known = {"job_id": "call", "process_id": "1-1", "pid": 5, "outcome": "failed", "reason": "raised", "detail": "it"}
    return {**known, **given}


def board(running: int = 0, idle: int = 0) -> dict[str, Any]:
    return {
        "app": "agent.py:app",
        "problem": None,
        "stats": dict(STATS),
        "options": {"max_jobs": 2000},
        "processes": [process(n, "running", f"call-{n}") for n in range(running)]
        + [process(running + n, "idle") for n in range(idle)],
        "sessions": [session(f"call-{n}") for n in range(running)] + [session("over", NOW - 5)],
        "turned_down": [{"at": NOW - 1, "reason": "full"}, {"at": NOW - 100, "reason": "memory"}],
        "reports": [{**report(), "at": NOW - 9}],
        "start_ms": [["warm", 1.0], ["cold", 30.0]],
    }


def picture_of(running: int = 0, idle: int = 0) -> Picture:
    picture = Picture()
    picture.apply("board", board(running, idle))
    return picture


def shown(picture: Picture, scene: Scene) -> list[str]:
    return [line.plain for line in draw(picture, scene)]


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


@pytest.mark.parametrize("reason", ["completed", "cancelled", "drained", "idle_expired"])
def test_an_end_that_is_expected_is_no_trouble(reason: str) -> None:
    picture = picture_of()
    picture.apply("ProcessEnded", {"report": report(reason=reason), "at": NOW})
    assert len(picture.troubles()) == 1  # of before


def test_what_happens_around_the_processes_is_told() -> None:
    picture = picture_of()
    picture.apply("ZygoteLost", {"pid": 77, "generation": 3, "cause": "SIGKILL", "at": NOW + 1})
    assert picture.stats is not None
    assert picture.stats["zygote_pid"] is None
    picture.apply("ZygoteStarted", {"pid": 78, "generation": 4, "at": NOW + 2})
    assert (picture.stats["zygote_pid"], picture.stats["generation"]) == (78, 4)
    picture.apply("ReloadFailed", {"cause": "SyntaxError\nTraceback", "at": NOW + 3})
    picture.apply("BreakerChanged", {"is_open": True, "cause": "prewarm raised", "at": NOW + 4})
    picture.apply("BreakerChanged", {"is_open": False, "cause": None, "at": NOW + 5})
    picture.apply("SomethingOfTheFuture", {})
    assert [one["who"] for one in picture.troubles()] == ["processes", "reload", "zygote 77", "job call"]
    picture.apply("board", board())  # after a loss of the connection
    assert len(picture.troubles()) == 4


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
    lines = shown(picture, Scene(NOW, 80, 24, selected="call-700", last_line="keys"))
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
    lines = draw(picture_of(running, idle), Scene(NOW, width, height, selected=selected, last_line="keys"))
    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)
    assert lines[-1].plain == "keys"[:width] or width < 4


def test_what_an_app_writes_does_not_steer_the_terminal() -> None:
    picture = picture_of()
    picture.apply("ProcessEnded", {"report": report(detail="\x1b[2J\x07 boo\nsecond line"), "at": NOW})
    text = "\n".join(shown(picture, Scene(NOW, 200, None)))
    assert "\\x1b[2J\\x07 boo" in text
    assert "second line" not in text


def test_before_the_pool_is_there_and_after_the_connection_is_lost() -> None:
    picture = Picture()
    picture.apply("board", {**board(), "stats": None, "problem": "warming"})
    assert "not ready: warming" in shown(picture, Scene(NOW, 100, 20))[0]
    assert "no connection" in shown(picture, Scene(NOW, 100, 20, is_lost=True))[0]


# --- sums, keys, controls ------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ([b"q"], ["q"]),
        ([b"\x1b[A\x1bOB"], ["up", "down"]),
        ([b"\x1b", b"c"], ["escape", "c"]),
        ([b"\x1b[", b"5", b"~q"], ["page up", "q"]),
        ([b"\x1b[1;5C"], ["\x1b[1;5C"]),
        ([b"\xff"], ["\ufffd"]),
    ],
)
def test_keys_have_names(sent: list[bytes], keys: list[str]) -> None:
    decoder = KeyDecoder()
    assert [key for data in sent for key in decoder.feed(data)] == keys


def test_the_selection_moves_within_what_lives() -> None:
    controls, live = Controls(), [f"call-{n}" for n in range(30)]
    for key, expected in (
        ("up", "call-0"),
        ("down", "call-1"),
        ("page down", "call-11"),
        ("end", "call-29"),
        ("down", "call-29"),
        ("page up", "call-19"),
        ("home", "call-0"),
        ("escape", None),
    ):
        assert controls.press(key, live, page=10) is None
        assert controls.selected == expected
    assert controls.press("down", [], page=10) is None
    assert controls.selected is None


def test_nothing_is_cancelled_without_a_yes() -> None:
    controls, live = Controls(), ["call"]
    assert controls.press("c", live, 10) is None
    assert controls.line == "no session is selected"
    controls.press("down", live, 10)
    for key in ("n", "q", "escape", "\r"):
        controls.press("c", live, 10)
        assert controls.line == "cancel job call? y/n"
        assert controls.press(key, live, 10) is None
    controls.press("c", live, 10)
    assert controls.press("y", live, 10) == Cancel("call")
    assert controls.press("y", live, 10) is None
    assert controls.press("c", [], 10) is None
    assert controls.line == "job call has ended"
    assert controls.press("q", [], 10) == Quit()
