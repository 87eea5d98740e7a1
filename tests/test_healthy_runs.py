"""Healthy load, watched by Prometheus: the judgement. The whole is a step of ``make nightly``."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.healthy.judge import FULL, LOST, MEMORY, OF_SPEED, Seen, faults
from benchmarks.healthy.load import Call

GOOD = Seen(
    interval=5.0,
    calls=[
        Call("call-0", 1.0, at=1000.0, answer="accepted", end="succeeded, completed"),
        Call("call-1", 1.0, is_cancelled=True, at=1000.0, answer="accepted", end="cancelled, cancelled"),
        Call("call-2", 1.0, at=1130.0, answer="full"),
    ],
    full=(1100.0, 1160.0),
    zygote_lost=1500.0,
    reloads=[200, 200],
    firing={FULL: [1105.0, 1160.0 + MEMORY], LOST: [1505.0, 1800.0]},
    panels={"Sessions": {"greenroom_jobs": [3.0], "greenroom_room": [float("nan"), 2.0]}},
    series=290,
    exit_code=0,
)


def test_a_run_in_which_only_the_meant_alerts_fired_is_good() -> None:
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"firing": {FULL: [1105.0]}}, f"{LOST} did not fire"),
        ({"firing": {FULL: [1095.0, 1105.0], LOST: [1505.0]}}, f"{FULL} fired without a cause, 1 times from 1095.0 on"),
        ({"firing": {FULL: [1600.0], LOST: [1505.0]}}, f"{FULL} fired without a cause, 1 times from 1600.0 on"),
        ({"firing": GOOD.firing | {"Other": [1.0]}}, "Other fired without a cause, 1 times from 1.0 on"),
        ({"calls": [*GOOD.calls, Call("late", 1.0, at=1300.0, answer="full")]}, "late at 1300.0: full"),
        ({"calls": [*GOOD.calls, Call("odd", 1.0, at=1130.0, answer="memory")]}, "odd at 1130.0: memory"),
        (
            {"calls": [*GOOD.calls, Call("cut", 1.0, at=1.0, answer="accepted", end="killed, signaled")]},
            "cut at 1.0 ended as killed, signaled",
        ),
        ({"calls": [*GOOD.calls, Call("lost", 1.0, at=1.0, answer="accepted")]}, "lost at 1.0 ended as None"),
        ({"calls": GOOD.calls[:1]}, "no call ended as cancelled, cancelled"),
        ({"panels": {}}, "the dashboard has no panels"),
        ({"panels": {"CPU": {"up": [float("nan")]}}}, "the panel 'CPU' has no data at the end: up"),
        ({"panels": {"CPU": {"up": []}}}, "the panel 'CPU' has no data at the end: up"),
        ({"series": 301.0}, "a scrape had 301 series; 300 are allowed"),
        ({"reloads": [200, 409]}, "a reload was answered by 409"),
        ({"reloads": [200]}, "there were 1 reloads and not 2"),
        ({"exit_code": 1}, "the worker ended with exit code 1"),
    ],
)
def test_each_fault_is_named(changed: dict[str, object], fault: str) -> None:
    assert faults(dataclasses.replace(GOOD, **changed)) == [fault]  # type: ignore[arg-type]


def test_a_busy_machine_may_be_slow() -> None:
    slow = dataclasses.replace(GOOD, firing=GOOD.firing | {name: [1000.0] for name in OF_SPEED})
    assert len(faults(slow)) == len(OF_SPEED)
    assert faults(slow, is_busy=True) == []
    late = dataclasses.replace(GOOD, calls=[*GOOD.calls, Call("late", 1.0, at=1510.0, answer="warming")])
    assert faults(late) == ["late at 1510.0: warming"]
    assert faults(late, is_busy=True) == []
