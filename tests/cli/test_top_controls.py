"""What keys mean in `greenroom top`: names of keys, selection, confirmation, typed words, pages of a job."""

from __future__ import annotations

from typing import Any

import pytest
from pictures import picture_of, session, watched_of

from greenroom.cli.top.actions import (
    Cancel,
    Close,
    Open,
    Quit,
    Scroll,
    Search,
    ShowPage,
    TakeStacks,
    TurnPage,
)
from greenroom.cli.top.controls import Controls
from greenroom.cli.top.keys import KeyDecoder
from greenroom.cli.top.listing import Found, JobRef, Listing
from greenroom.cli.top.prompt import LONGEST

NOTHING = Listing([], [], [])


def job(job_id: str, worker: int = 0) -> JobRef:
    return JobRef(worker, job_id)


def row(job_id: str, ended: float | None = None, **known: Any) -> dict[str, Any]:
    return {**session(job_id, ended), "worker": 0, **known}


def listing(*live: str, ended: tuple[str, ...] = ()) -> Listing:
    return Listing([row(one) for one in live], [row(one, 1.0) for one in ended], [])


def press(controls: Controls, keys: str | list[str], shown: Listing = NOTHING) -> list[object]:
    """Press keys, and return the actions."""
    actions = [controls.press(key, shown, 10) for key in keys]
    return [action for action in actions if action is not None]


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ([b"q"], ["q"]),
        ([b"jk /"], ["j", "k", " ", "/"]),
        ([b"\x1b[A\x1bOB"], ["up", "down"]),
        ([b"\x1b", b"c"], ["escape", "c"]),
        ([b"\x1b[", b"5", b"~q"], ["page up", "q"]),
        ([b"\x1b[1;5C"], ["\x1b[1;5C"]),
        ([b"\x1b[C\x1b[D\t"], ["right", "left", "tab"]),
        ([b"\r\n\x7f\x08\x15"], ["enter", "enter", "backspace", "backspace", "ctrl-u"]),
        ([b"\xff"], ["\ufffd"]),
        ([b"\xc3", b"\xa9"], ["\u00e9"]),
    ],
)
def test_keys_have_names(sent: list[bytes], keys: list[str]) -> None:
    decoder = KeyDecoder()
    assert [key for data in sent for key in decoder.feed(data)] == keys


# --- the lists -----------------------------------------------------------------------------------


def test_the_selection_moves_among_live_and_ended_sessions() -> None:
    controls = Controls()
    shown = listing(*(f"call-{n}" for n in range(30)), ended=("late", "early"))
    for key, expected in (
        ("up", "call-0"),
        ("j", "call-1"),
        ("page down", "call-11"),
        ("end", "early"),
        ("down", "early"),
        ("k", "late"),
        ("up", "call-29"),
        (" ", "early"),
        ("page up", "call-21"),
        ("home", "call-0"),
        ("escape", None),
    ):
        assert controls.press(key, shown, page=10) is None
        assert controls.selected == (expected and job(expected))
    assert controls.press("down", NOTHING, page=10) is None
    assert controls.selected is None


def test_a_session_stays_selected_when_it_ends() -> None:
    controls = Controls()
    press(controls, ["down", "down"], listing("call-0", "call-1"))
    press(controls, ["up"], listing("call-0", ended=("call-1",)))
    assert controls.selected == job("call-0")


def test_nothing_is_cancelled_without_a_yes() -> None:
    controls, live = Controls(), listing("call")
    assert press(controls, "c", live) == []
    assert controls.line == "no session is selected"
    press(controls, ["down"], live)
    for key in ("n", "q", "escape", "enter"):
        press(controls, "c", live)
        assert controls.line == "cancel job call? y/n"
        assert press(controls, [key], live) == []
    assert press(controls, "cy", live) == [Cancel(job("call"))]
    assert press(controls, "y", live) == []
    assert press(controls, "c") == []
    assert controls.line == "job call has ended"
    assert press(controls, "q") == [Quit()]


# --- typed words ---------------------------------------------------------------------------------


def test_letters_that_are_typed_mean_nothing_else() -> None:
    controls = Controls()
    assert press(controls, "/") == []
    assert press(controls, "jock:qc y") == []
    assert controls.typed == "jock:qc y"
    assert press(controls, ["up", "backspace", "backspace", "backspace", "enter"]) == [Search("jock:q")]
    assert controls.typed is None
    press(controls, "/")
    assert controls.typed == "jock:q"  # to be changed
    press(controls, ["ctrl-u"])
    assert controls.typed == ""
    assert press(controls, "x" * (LONGEST + 1) + "\t\x1b[1;5C") == []
    assert controls.typed == "x" * LONGEST
    assert press(controls, ["escape"]) == []
    assert controls.typed is None


def test_escape_takes_the_filter_away_and_then_the_selection() -> None:
    controls, live = Controls(), listing("call")
    press(controls, ["down", "/", "a", "enter"], live)
    controls.is_filtered = True
    assert press(controls, ["escape"], live) == [Search("")]
    controls.is_filtered = False
    assert controls.selected == job("call")
    assert press(controls, ["escape"], live) == []
    assert controls.selected is None
    press(controls, "/")
    assert controls.typed == ""


# --- one job -------------------------------------------------------------------------------------


def test_keys_for_the_job_that_is_shown() -> None:
    controls, live = Controls(), listing("call", "other")
    assert press(controls, ["enter"], live) == []
    assert controls.line == "no session is selected"
    assert press(controls, ["down", "enter"], live) == [Open(job("call"))]
    assert press(controls, ["tab", "right", "left"], live) == [TurnPage(1), TurnPage(1), TurnPage(-1)]
    assert press(controls, "rls", live) == [ShowPage("report"), ShowPage("log"), TakeStacks()]
    steps = press(controls, ["up", "j", "page up", " "], live)
    assert steps == [Scroll(-1), Scroll(1), Scroll(-10), Scroll(10)]
    assert press(controls, "/x", live) == []
    assert (controls.typed, controls.selected) == (None, job("call"))
    assert press(controls, "cy", live) == [Cancel(job("call"))]
    assert press(controls, "c", listing("other")) == []
    assert controls.line == "job call has ended"
    assert press(controls, ["escape"], live) == [Close()]
    assert press(controls, ["down", "enter"], live) == [Open(job("other"))]
    assert press(controls, "q", live) == [Quit()]


# --- what a search finds -------------------------------------------------------------------------


def test_the_lists_show_what_was_found_in_the_state_that_the_events_tell() -> None:
    watched = [watched_of(picture_of(running=3))]
    older = row("older", 5.0, state="ended")
    lost = row("lost", state="ended", started=None)
    answered_while_live = row("over", state="running")
    not_seen_yet = row("new", state="running")
    jobs = [lost, older, answered_while_live, row("call-1", state="running"), not_seen_yet]
    found = Listing.of(watched, Found("words", {job(one["id"]): one for one in jobs}, is_cut=False))
    assert [one["id"] for one in found.live] == ["call-1"]
    # "over" ended 5 s ago. The end of "lost" is unknown, so its acceptance 61 s ago counts.
    assert [one["id"] for one in found.ended] == ["over", "lost", "older"]
    assert found.live_refs == {job("call-1")}


def test_problems_are_those_of_the_jobs_that_were_found() -> None:
    picture = picture_of()  # with a failed job "call"
    incident = {"at": 1.0, "kind": "zygote lost", "cause": "why", "is_bad": True}
    picture.apply("ZygoteLost", {"incident": incident})
    watched = [watched_of(picture)]
    assert len(Listing.of(watched, None).troubles) == 2
    for job_id, troubles in (("call", ["call"]), ("other", [])):
        found = Found("words", {job(job_id): row(job_id, state="running")}, is_cut=False)
        assert [one["job_id"] for one in Listing.of(watched, found).troubles] == troubles
