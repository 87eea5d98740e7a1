"""What a session costs and whether there is room for it: policies by property. And the snapshot by its events."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support import STATS

import greenroom
from greenroom import ExitReport, ProcessPool, Timings
from greenroom.exit_reasons import EXPECTED_ENDS
from greenroom.pool.core.memory import SessionCost
from greenroom.pool.event_bus import EventBus
from greenroom.pool.events import (
    JobAccepted,
    JobEnded,
    JobStarted,
    MemorySampled,
    ProcessChanged,
    ProcessEnded,
    TurnedDown,
)
from greenroom.server.machine.limits import MemoryRoom, shortage
from greenroom.server.telemetry.snapshot import KEPT_TURNED_DOWN, Snapshot

megabytes = st.floats(0.0, 10_000.0)
samples = st.lists(st.tuples(st.sampled_from("abcdefgh"), megabytes, st.booleans()), max_size=60)


def cost_of(seen: list[tuple[str, float, bool]], idle: float | None) -> SessionCost:
    cost = SessionCost()
    if idle is not None:
        cost.sampled_idle(idle)
    for process_id, private, has_ended in seen:
        cost.sampled_running(process_id, private)
        if has_ended:
            cost.ended(process_id)
    return cost


@given(samples, st.none() | megabytes)
def test_a_cost_lies_between_what_was_seen(seen: list[tuple[str, float, bool]], idle: float | None) -> None:
    cost = cost_of(seen, idle)
    known = [private for _, private, _ in seen] + ([] if idle is None else [idle])
    if not known:
        assert cost.session_mb is None
    else:
        assert cost.session_mb is not None
        assert (idle or 0.0) <= cost.session_mb <= max(known)


@given(samples, st.integers(0, 50))
def test_growth_is_never_negative_and_counts_who_was_not_looked_at(
    seen: list[tuple[str, float, bool]], unsampled: int
) -> None:
    cost = cost_of(seen, 5.0)
    growth = cost.expected_growth_mb(unsampled)
    assert growth >= (cost.session_mb or 0.0) * unsampled
    assert cost.expected_growth_mb(-3) == cost.expected_growth_mb(0) >= 0.0


@given(megabytes, megabytes, megabytes, megabytes, megabytes)
def test_more_memory_never_makes_a_session_fit_worse(
    available: float, session: float, growth: float, least: float, more: float
) -> None:
    before = shortage(available, session, growth, least)
    assert shortage(available + more, session, growth, least) <= before
    assert shortage(available, session + more, growth, least) >= before
    assert (before <= 0) == (session + growth + least <= available)


# --- the snapshot --------------------------------------------------------------------------------

REPORT = ExitReport("succeeded", "completed", "the entrypoint returned", Timings(0.0, ended=9.0), "job", "1-1", 77, 1)


def a_snapshot() -> tuple[Snapshot, EventBus]:
    pool = ProcessPool("an_app_that_is_never_loaded")
    return Snapshot(pool, lambda job_id: None), pool._events


async def test_the_board_adds_events_up() -> None:
    snapshot, bus = a_snapshot()
    bus.publish(ProcessChanged("1-1", None, 1, "", "requested", None, at=1.0))
    bus.publish(ProcessChanged("1-1", 77, 1, "warming", "idle", None, at=2.0))
    bus.publish(MemorySampled("1-1", 77, "idle", 3.5))
    bus.publish(JobAccepted("job", "http", "warm", at=3.0))
    bus.publish(JobStarted("job", "http", "1-1", 77, 1, "cold", 0.0015, 0.0))  # the warm process was lost
    bus.flush()
    assert (
        snapshot.processes["1-1"] | {"private_mb": 3.5, "state": "idle", "pid": 77, "since": 2.0}
        == snapshot.processes["1-1"]
    )
    assert list(snapshot.start_ms) == [("cold", 1.5)]
    bus.publish(JobEnded(REPORT, "http"))
    bus.publish(ProcessEnded(replace(REPORT, outcome="killed", reason="stalled")))
    bus.flush()
    assert snapshot.processes == {}
    assert [report["reason"] for report in snapshot.failures.reports()] == ["stalled"]


def test_the_page_takes_the_same_ends_for_normal() -> None:
    source = (Path(greenroom.__file__).parent / "server/web/page/board.js").read_text()
    listed = re.search(r"NORMAL_ENDS = new Set\((\[.*?\])\)", source)
    assert listed is not None
    assert set(json.loads(listed[1])) == EXPECTED_ENDS


async def test_the_board_is_bounded() -> None:
    snapshot, bus = a_snapshot()
    for number in range(3 * KEPT_TURNED_DOWN):
        bus.publish(TurnedDown(f"other-{number}", "http", "full", "all taken", at=float(number)))
    bus.flush()
    assert len(snapshot.turned_down) == KEPT_TURNED_DOWN
    assert snapshot.turned_down_total["full"] == 3 * KEPT_TURNED_DOWN
    assert snapshot.recently_turned_down(now=3.0 * KEPT_TURNED_DOWN)["full"] <= 60


async def test_one_listener_that_fails_keeps_no_other_from_hearing() -> None:
    bus, heard = EventBus(), []

    def fails(event: object) -> None:
        raise RuntimeError("deaf")

    bus.subscribe(fails)
    unsubscribe = bus.subscribe(heard.append)
    bus.publish(TurnedDown("a", "http", "full", ""))
    bus.flush()
    unsubscribe()
    unsubscribe()
    bus.publish(TurnedDown("b", "http", "full", ""))
    bus.flush()
    assert [event.job_id for event in heard] == ["a"]


def test_memory_is_kept_free_before_a_session_was_measured() -> None:
    """The first sessions come within half a second of the start, before any process was looked at."""
    assert MemoryRoom(100.0, lambda: 101.0).problem(STATS) is None
    assert "100 MiB (min_free_memory_mb) must stay free" in str(MemoryRoom(100.0, lambda: 99.0).problem(STATS))
