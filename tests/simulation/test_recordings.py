"""Recorded histories are replayed: with this core nothing differs, and with another one the place is named."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from greenroom.pool.core.core import PoolCore
from greenroom.pool.core.effective_options import EffectiveOptions
from greenroom.pool.flight_recorder import recorder as recording
from greenroom.pool.flight_recorder.explain import decisions
from greenroom.pool.flight_recorder.reader import lines_of, written_out
from greenroom.pool.flight_recorder.replay import Replay
from greenroom.pool.flight_recorder.state import StateReader, capture, record_names
from greenroom.pool.flight_recorder.storage import Memory

from .flights import record, recorded_by
from .hunt import DATA
from .mutations import EQUIVALENT, MUTATIONS, mutated
from .plans import draw_plan
from .times import recorded

SEEDS: dict[str, dict[str, int]] = json.loads(DATA.read_text())
COUNT = 40
SMALL = 48_000
"""Bytes: few enough for a long history to fill several segments, each with a state of its own."""


def _replay(recorded: bytes) -> Replay:
    replay = Replay(lines_of([recorded]))
    for moment in replay.moments():
        for decision in decisions(moment):
            assert decision.why
    return replay


@pytest.mark.parametrize("batch", range(10))
def test_histories_replay_as_recorded_from_any_moment(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Effects are compared after each event, and the whole state wherever the recording has one."""
    monkeypatch.setattr(recording, "_SLICE", 3)
    for seed in range(batch * COUNT, (batch + 1) * COUNT):
        rng = random.Random(f"begin {seed}")
        raw = record(draw_plan(seed), begin=rng.choice((0, rng.randrange(1, 80))), most=rng.choice((SMALL, 2**26)))
        if not raw:
            continue
        for form in (raw, b"".join(written_out([raw]))):
            replay = _replay(form)
            assert replay.difference is None, f"history {seed}: {replay.difference}"
            assert not replay.missing


def test_long_histories_fill_several_segments() -> None:
    """Otherwise the test above compares no state."""
    assert max(record(draw_plan(seed), most=SMALL).count(b'["state",') for seed in range(COUNT)) >= 3


def test_what_is_recorded_stays_within_its_bytes() -> None:
    sizes = [len(record(draw_plan(seed), most=SMALL)) for seed in range(COUNT)]
    assert max(sizes) > SMALL / 2
    assert max(sizes) < SMALL + 6_000  # the last line, and a state that is written while the segment before is kept


def test_a_state_is_taken_and_read_at_each_event() -> None:
    """A core that was read from a state has the same state, and does the same next."""
    for seed in range(12):
        plan = draw_plan(seed)
        core = PoolCore(EffectiveOptions(plan.options, plan.fixed), offset=1_700_000_000.0)
        for event, now in recorded(plan):
            other = _read(core)
            assert msgspec.json.encode(capture(other.pool)) == msgspec.json.encode(capture(core.pool))
            assert other.next_deadline() == core.next_deadline()
            assert [type(one) for one in other.handle(event, now)] == [type(one) for one in core.handle(event, now)]
            assert other.invariants() == []


def _read(core: PoolCore) -> PoolCore:
    reader, names = StateReader(), record_names()
    for number, *row in msgspec.json.decode(msgspec.json.encode(capture(core.pool))):
        name, *fields = names[number]
        reader.add(name, dict(zip(fields, row, strict=True)))
    return reader.core()


def test_a_look_at_the_pool_changes_nothing() -> None:
    """Statistics are asked for at any time, which no recording knows."""
    for seed in range(12):
        plan = draw_plan(seed)
        core = PoolCore(EffectiveOptions(plan.options, plan.fixed), offset=1_700_000_000.0)
        for event, now in recorded(plan):
            core.handle(event, now)
            before = msgspec.json.encode(capture(core.pool))
            core.stats(), core.idle_target(), core.candidate(), core.next_deadline()
            assert msgspec.json.encode(capture(core.pool)) == before


@pytest.mark.parametrize("name", [name for name in MUTATIONS if name not in EQUIVALENT])
def test_another_core_differs_and_the_place_is_named(name: str) -> None:
    """Where no effect shows it, the state does: a count that is wrong, say."""
    plan = draw_plan(SEEDS["mutations"][name], promises=False)
    for has_all_states in (False, True):
        raw = record(plan, has_all_states=has_all_states)
        with mutated(name):
            difference = _replay(raw).difference
        if difference is None:
            continue
        line = msgspec.json.decode(raw.split(b"\n")[difference.place - 1])
        assert difference.about.startswith("the state after event " if line == ["end"] else f"event {line[0]}, ")
        assert difference.recorded != difference.now
        return
    raise AssertionError("nothing differs")


def test_an_event_that_cannot_be_recorded_costs_a_gap_and_no_more() -> None:
    """The recording goes on, and so does a replay from the next state."""
    plan = draw_plan(23)
    core = PoolCore(EffectiveOptions(plan.options, plan.fixed), offset=1_700_000_000.0)
    recorder = recording.Recorder(core, Memory(), 2**26, lambda fn: fn())
    events = recorded(plan)
    for number, (event, now) in enumerate(events):
        shown: Any = object() if number == len(events) // 2 else event
        recorder.note(shown, now, core.handle(event, now))
    replay = _replay(recorded_by(recorder))
    assert replay.difference is None
    assert replay.events == len(events) - 1
    assert len(replay.missing) == 1


def test_plans_record_reloads_and_hooks() -> None:
    """Of what the histories above have, some records are rare: none of them is never read."""
    seen = set()
    for seed in range(150):
        for line in lines_of([record(draw_plan(seed), begin=20)]):
            if type(line.content).__name__ == "Record":
                seen.add(line.content[0])
        if len(seen) == len(record_names()):
            return
    raise AssertionError(f"only {sorted(seen)} were recorded")
