"""The judgement of the soak of everything: what it takes for true, and what it finds. A lie must never pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.everything.account import Readiness
from benchmarks.everything.effects import DOWN, EFFECTS
from benchmarks.everything.judge import faults_of_call, faults_of_process, faults_of_room, possible_ends
from benchmarks.everything.ledger import Call, End, Entry, Injection, Ledger, RoomCall
from benchmarks.everything.plans import PLANS

PID = 4711
ENTER = Entry("enter", "job", PID, 100.0)
WROTE_END = Entry("end", "job", PID, 103.0)
END = End("succeeded", "completed", "the entrypoint returned", PID, 99.9, 100.0, 103.1, exit_code=0, result="nonce")
KILLED = replace(END, outcome="killed", reason="signaled", detail="SIGKILL from outside", signal=9, result=None)
KILL = Injection(102.0, "kill session", PID, "job")


def a_call(end: End | None, plan: str = "return", **fields: object) -> Call:
    known = {"requested": 99.8, "answer": "accepted", "answered": 100.1, "nonce": "nonce", **fields}
    return Call("job", plan, end=end, **known)  # type: ignore[arg-type]


def of_plan(name: str) -> End:
    """Return the report that a job has if nothing is done to it."""
    plan = PLANS[name]
    result = {"ended_by": "nonce"} if name == "room" else "nonce"
    return replace(
        END, outcome=plan.outcome, reason=plan.reason, exit_code=plan.exit_code, signal=plan.signal,
        ended=120.0, result=result if plan.reason == "completed" else None,
        stack_dump="File ..." if plan.has_stack else None, descendants_killed=int(plan.leaves_processes),
    )  # fmt: skip


RUNS = [name for name, plan in PLANS.items() if not plan.is_refused]


@pytest.mark.parametrize("plan", RUNS)
def test_each_plan_has_an_end_that_is_right(plan: str) -> None:
    entries = [ENTER] if plan == "overstay" else [ENTER, WROTE_END]
    assert not faults_of_call(a_call(of_plan(plan), plan), entries, [])


@pytest.mark.parametrize("plan", RUNS)
@pytest.mark.parametrize("other", RUNS)
def test_no_plan_may_end_as_another(plan: str, other: str) -> None:
    if of_plan(plan) == of_plan(other):
        return
    faults = faults_of_call(a_call(of_plan(other), plan), [ENTER, WROTE_END], [])
    indistinguishable = {plan, other} <= {"return", "cancelled", "family"}
    assert faults or indistinguishable


def test_a_job_that_was_killed_before_its_own_end_was_killed() -> None:
    assert not faults_of_call(a_call(KILLED), [ENTER], [KILL])
    assert possible_ends(a_call(KILLED), [ENTER], [KILL]).keys() == {"signaled"}
    (fault,) = faults_of_call(a_call(END), [ENTER], [KILL])
    assert "succeeded/completed was not the cause" in fault


def test_both_causes_are_possible_exactly_if_its_own_end_had_begun() -> None:
    entries = [ENTER, WROTE_END]
    late = replace(KILL, at=103.05)
    assert possible_ends(a_call(END), entries, [late]).keys() == {"completed", "signaled"}
    assert not faults_of_call(a_call(END), entries, [late])
    assert not faults_of_call(a_call(replace(KILLED, outcome="succeeded")), entries, [late])


@pytest.mark.parametrize(
    "injection",
    [
        replace(KILL, pid=1, job_id=None),
        replace(KILL, at=90.0),
        replace(KILL, at=104.0),
        Injection(102.0, "pause session", PID, "job"),
        Injection(102.0, "hold session", PID, "job"),
        Injection(102.0, "kill zygote", 12),
        Injection(102.0, "reload bad", until=110.0),
    ],
    ids=["another process", "too early", "too late", "a pause", "a debugger", "its zygote", "bad code"],
)
def test_what_did_not_hit_it_is_no_cause(injection: Injection) -> None:
    assert faults_of_call(a_call(KILLED), [ENTER], [injection])


def test_a_kill_is_told_from_a_crash() -> None:
    assert faults_of_call(a_call(replace(KILLED, signal=11)), [ENTER], [KILL])
    crashed = replace(of_plan("crash"), signal=9)
    assert faults_of_call(a_call(crashed, "crash"), [ENTER, WROTE_END], [])


def test_an_entrypoint_that_is_entered_twice_is_found() -> None:
    (fault,) = faults_of_call(a_call(END), [ENTER, replace(ENTER, pid=4712), WROTE_END], [])
    assert "entered 2 times, in 4711, 4712" in fault


def test_a_job_that_was_rejected_must_not_run_and_has_a_reason() -> None:
    rejected = a_call(None, answer="rejected", why="full")
    assert not faults_of_call(rejected, [], [])
    assert faults_of_call(rejected, [ENTER], [])
    assert faults_of_call(replace(rejected, why="because"), [], [])
    assert faults_of_call(replace(rejected, why="draining"), [], [])
    assert not faults_of_call(replace(rejected, why="draining"), [], [Injection(95.0, "drain worker", until=101.0)])
    assert not faults_of_call(replace(rejected, plan="refused", why="rejected_by_app"), [], [])
    assert faults_of_call(replace(rejected, why="rejected_by_app"), [], [])


def test_a_job_that_its_app_turns_down_must_not_be_accepted() -> None:
    assert faults_of_call(a_call(END, "refused"), [ENTER, WROTE_END], [])


def test_a_report_may_be_missing_only_where_the_worker_was_killed() -> None:
    missing = a_call(None, missed=102.5, missed_why="the worker does not know it")
    assert faults_of_call(missing, [ENTER], [])
    assert faults_of_call(missing, [ENTER], [Injection(101.0, "drain worker", until=105.0)])
    assert not faults_of_call(missing, [ENTER], [Injection(101.0, "kill worker", 1, until=105.0)])
    assert faults_of_call(missing, [ENTER], [Injection(90.0, "kill worker", 1, until=95.0)])


def test_a_worker_that_cannot_be_reached_must_be_down() -> None:
    unreachable = a_call(None, answer="unreachable", why="refused")
    assert faults_of_call(unreachable, [], [])
    for kind in (*DOWN, "files short"):
        assert not faults_of_call(unreachable, [], [Injection(95.0, kind, until=101.0)])
        assert faults_of_call(unreachable, [], [Injection(90.0, kind, until=95.0)])


def test_a_job_that_never_started_needs_a_cause_and_was_not_entered() -> None:
    unstarted = replace(END, outcome="failed", reason="start_timeout", started=None, result=None)
    failed = a_call(unstarted, answer="failed")
    assert faults_of_call(failed, [], [])
    assert not faults_of_call(failed, [], [Injection(95.0, "kill zygote", 12)])
    assert faults_of_call(failed, [ENTER], [Injection(95.0, "kill zygote", 12)])
    assert faults_of_call(a_call(END, answer="failed"), [ENTER, WROTE_END], [])


def test_a_cancelled_job_says_who_cancelled_it() -> None:
    cancel = Injection(101.0, "cancel", job_id="job", note="by the soak 7")
    cancelled = replace(END, outcome="cancelled", reason="cancelled", detail="by the soak 7", result=None)
    assert not faults_of_call(a_call(cancelled), [ENTER], [cancel])
    assert faults_of_call(a_call(replace(cancelled, detail="somebody")), [ENTER], [cancel])
    assert faults_of_call(a_call(cancelled), [ENTER], [])


INJECTED = st.builds(Injection, st.floats(90, 110), st.sampled_from(sorted(EFFECTS)), st.sampled_from([None, 1, PID]))


@given(
    st.sampled_from(RUNS),
    st.sampled_from(sorted({plan.reason for plan in PLANS.values() if plan.reason} | {"drained", "oom_killed"})),
    st.lists(
        st.builds(Injection, st.floats(90, 110), st.sampled_from(sorted(EFFECTS)), st.sampled_from([None, 1, PID]))
    ),
    st.booleans(),
)
def test_a_reason_passes_only_if_something_that_was_done_can_give_it(
    plan: str, reason: str, injections: list[Injection], has_ended: bool
) -> None:
    """The property that the whole soak stands on."""
    end = replace(of_plan(plan), reason=reason)
    entries = [ENTER, WROTE_END] if has_ended else [ENTER]
    faults = faults_of_call(a_call(end, plan), entries, injections)
    own = reason == PLANS[plan].reason and (has_ended or plan == "overstay")
    effects = [
        EFFECTS[one.kind] for one in injections if one.pid == PID or one.kind in ("drain worker", "memory short")
    ]
    given_by_others = any(reason in effect.started + effect.after_own_end for effect in effects)
    if not own and not given_by_others:
        assert any("was not the cause" in fault for fault in faults)


def test_what_a_job_left_behind_is_counted_unless_its_zygote_was_lost() -> None:
    uncounted = a_call(replace(of_plan("family"), descendants_killed=0), "family")
    assert faults_of_call(uncounted, [ENTER, WROTE_END], [])
    assert faults_of_call(uncounted, [ENTER, WROTE_END], [Injection(90.0, "kill zygote", 12)])
    assert not faults_of_call(uncounted, [ENTER, WROTE_END], [Injection(120.1, "kill zygote", 12)])


# --- processes without a job ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "signal", "injection", "is_right"),
    [
        ("idle_expired", None, None, True),
        ("drained", None, None, True),
        ("signaled", 9, None, False),
        ("signaled", 9, Injection(99.0, "kill idle", PID), True),
        ("signaled", 9, Injection(99.0, "kill idle", 1), False),
        ("signaled", 9, Injection(60.0, "kill idle", PID), False),
        ("signaled", 11, Injection(99.0, "kill idle", PID), False),
        ("signaled", 9, Injection(99.0, "kill resident", PID), True),
        ("stalled", 9, Injection(99.0, "stop idle", PID), True),
        ("stalled", 9, Injection(99.0, "kill idle", PID), False),
        ("prewarm_failed", None, None, False),
        ("prewarm_failed", None, Injection(90.0, "reload bad", until=99.0), True),
        ("protocol_error", 9, Injection(99.0, "kill idle", PID), False),
        ("exited", None, None, False),
    ],
)
def test_the_end_of_a_process_without_a_job(
    reason: str, signal: int | None, injection: Injection | None, is_right: bool
) -> None:
    injections = [] if injection is None else [injection]
    assert is_right != bool(faults_of_process(PID, reason, signal, "", 100.0, injections))


def test_a_process_exits_by_itself_only_where_its_code_has_it_exit() -> None:
    while_warming = (PID, "exited", None, "it exited with code 6 while it was warming", 100.0)
    bad = Injection(95.0, "reload bad", until=101.0, note="prewarm exits")
    assert not faults_of_process(*while_warming, [bad])
    assert faults_of_process(*while_warming, [replace(bad, note="prewarm raises")])
    assert faults_of_process(PID, "exited", None, "it exited with code 6 while it was idle", 100.0, [bad])


# --- rooms ---------------------------------------------------------------------------------------


AGENT = replace(ENTER, room="hall")
SERVED = RoomCall("hall", "hall", joined=98.0, sign="job", signed=100.5, gave_up=104.0)
UNSERVED = RoomCall("hall", "hall", joined=98.0, gave_up=110.0)


def test_a_room_is_served_by_one_agent_that_was_entered() -> None:
    assert not faults_of_room(SERVED, [AGENT], [])
    assert faults_of_room(SERVED, [], [])
    assert faults_of_room(SERVED, [AGENT, replace(AGENT, job_id="other")], [])


@pytest.mark.parametrize(
    ("injections", "is_explained"),
    [
        ([], False),
        ([Injection(50.0, "kill worker", 1, until=60.0)], False),
        ([Injection(97.0, "kill worker", 1, until=103.0)], True),
        ([Injection(105.0, "kill worker", 1, until=109.0)], False),
        ([Injection(99.0, "kill session", 7, "somebody's")], False),
        ([Injection(99.0, "kill zygote", 7)], False),
    ],
)
def test_a_room_without_an_agent_needs_an_explanation(injections: list[Injection], is_explained: bool) -> None:
    assert is_explained != bool(faults_of_room(UNSERVED, [], injections))


def test_a_worker_that_said_it_was_not_ready_is_not_asked_for_an_agent() -> None:
    """If it had a cause to say so."""
    unready = replace(UNSERVED, unready=[98.5])
    assert not faults_of_room(unready, [], [Injection(96.0, "kill zygote", 7)])
    assert faults_of_room(unready, [], [])
    assert faults_of_room(unready, [], [Injection(70.0, "kill zygote", 7)])


def test_a_worker_is_unready_while_its_zygote_is_lost_and_nothing_is_idle() -> None:
    readiness = Readiness()
    idle, claimed = ({"process_id": "1-1", "after": state} for state in ("idle", "claimed"))
    events = [("ProcessChanged", idle), ("ZygoteLost", {}), ("ProcessChanged", claimed), ("JobStarted", {})]
    events += [("ZygoteStarted", {}), ("Levels", {"problem": None}), ("Levels", {"problem": "warming"})]
    for now, (name, event) in enumerate(events):
        readiness.hear(name, event, now)
    assert list(readiness.moments) == [2, 3, 6]


def test_an_agent_whose_worker_was_killed_before_its_caller_saw_it_explains_that() -> None:
    assert not faults_of_room(UNSERVED, [AGENT], [Injection(105.0, "kill worker", 1, until=109.0)])


def test_an_agent_that_was_killed_before_its_caller_saw_it_explains_that() -> None:
    assert faults_of_room(UNSERVED, [AGENT], [])
    assert not faults_of_room(UNSERVED, [AGENT], [replace(KILL, at=100.2)])


def test_a_room_that_was_turned_down_has_a_reason() -> None:
    assert not faults_of_room(replace(UNSERVED, turned_down=[(98.2, "full")]), [], [])
    assert faults_of_room(replace(UNSERVED, turned_down=[(98.2, "rejected_by_app")]), [], [])
    (fault,) = faults_of_room(replace(UNSERVED, turned_down=[(98.2, "because")]), [], [])
    assert "with the unknown reason" in fault


# --- the ledger ----------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.txt")
    yield ledger
    ledger.close()


def test_the_ledger_tells_what_happened_around_a_moment(ledger: Ledger, tmp_path: Path) -> None:
    ledger.enter(ENTER)
    ledger.inject(KILL)
    ledger.note(500.0, "much later")
    assert [line.split(maxsplit=1)[1] for line in ledger.around(101.0)] == [
        "app    enter job pid 4711 ",
        "inject kill session pid 4711 job",
    ]
    assert "500.000 much later" in (tmp_path / "ledger.txt").read_text()


def test_an_injection_whose_process_was_gone_is_taken_back(ledger: Ledger) -> None:
    injection = ledger.inject(replace(KILL))
    ledger.void(injection)
    assert ledger.injections == []
    assert ledger.counts["kill session"] == 0
    assert "job" in ledger.touched  # it is left alone all the same
