"""The pool's core lives simulated histories, and everything holds that must."""

from __future__ import annotations

import dataclasses

import pytest

from greenroom.pool.core import process
from greenroom.pool.core.states import ProcessEvent, ProcessState

from .lives import live
from .plans import PROFILES, Action, draw_plan, stream
from .shorten import as_text, shorten
from .trace import trace

COUNT = 40


@pytest.mark.parametrize("batch", range(10))
def test_everything_holds_in_simulated_histories(batch: int) -> None:
    for seed in range(batch * COUNT, (batch + 1) * COUNT):
        result = live(draw_plan(seed))
        assert not result.oracle, f"history {seed}: {result.text}"


def test_a_history_is_the_same_each_time() -> None:
    assert trace(draw_plan(17)) == trace(draw_plan(17))


def test_each_entity_has_a_stream_of_its_own() -> None:
    streams = [stream(seed, kind, number) for seed in (1, 2) for kind in ("process", "launcher") for number in (1, 2)]
    assert len({one.random() for one in streams}) == len(streams)


def test_plans_draw_every_profile() -> None:
    assert {draw_plan(seed).profile for seed in range(2000)} == {"calm", "few", "many", *PROFILES}


def test_a_failing_history_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row without its deadline is found, and the history that shows it keeps no action that is not needed."""
    rows = process.TABLE[ProcessState.IDLE]
    row = rows[ProcessEvent.CLAIM]
    monkeypatch.setitem(rows, ProcessEvent.CLAIM, row._replace(do=()))
    plan = next(plan for plan in map(draw_plan, range(100)) if live(plan).oracle)
    result = live(plan)
    short = shorten(result)
    assert short.oracle == result.oracle
    assert len(short.plan.actions) < len(plan.actions)
    assert [action.kind for action in short.plan.actions if action.kind in ("launch", "reserve")]
    assert f"seed {plan.seed}" in as_text(short.plan)


def test_a_shorter_plan_leaves_what_others_draw() -> None:
    """Without its last action, a history is the same until that moment."""
    plan = draw_plan(23)
    last = plan.actions[-1]
    shorter = dataclasses.replace(plan, actions=plan.actions[:-1])
    until = [line for line in trace(plan) if not line.startswith(" " * 13) and _at(line) < last.at]
    assert until == [line for line in trace(shorter) if not line.startswith(" " * 13) and _at(line) < last.at]


def _at(line: str) -> float:
    try:
        return float(line.split()[0])
    except ValueError:
        return float("inf")


def test_a_launch_in_a_calm_world_starts_its_job_at_once() -> None:
    plan = dataclasses.replace(
        draw_plan(1),
        weights={},
        actions=(Action(5.0, "launch", 1, 10.0), Action(20.0, "close")),
    )
    lines = trace(plan)
    assert not any("Violation" in line for line in lines)
    assert any("Start(" in line for line in lines)
