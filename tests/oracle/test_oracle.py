"""The pool's behaviour, compared with what was recorded of it.

Record anew: ``ORACLE_RUNS=5 .venv/bin/pytest tests/oracle -k SCENARIO``. Each scenario is run five times, and what is
equal in all runs is kept. A difference that is meant goes into differences.md, in the commit that makes it.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.stage import Stage
from oracle import scenarios, soak  # noqa: F401 - they register their scenarios
from oracle.recording import LIVES, Record, Recorder, differences, merge, text_of
from oracle.setting import SCENARIOS, Scenario, Setting

MakeApp = Callable[[str], str]

RECORDED = Path(__file__).parent / "recorded"
RUNS = int(os.environ.get("ORACLE_RUNS", "0"))


async def run(scenario: Scenario, make_app: MakeApp, recorder: Recorder) -> Record:
    async with Stage(make_app) as stage:
        await scenario.function(Setting(stage, recorder))
    return recorder.record()


@pytest.mark.parametrize("name", SCENARIOS)
async def test_oracle(make_app: MakeApp, name: str) -> None:
    scenario, path = SCENARIOS[name], RECORDED / f"{name}.json"
    recorders = [Recorder(lives=scenario.lives, generations=scenario.generations) for _ in range(max(RUNS, 1))]
    if RUNS:
        kept, races = merge([await run(scenario, make_app, recorder) for recorder in recorders])
        about = inspect.getdoc(scenario.function)
        path.write_text(text_of({"scenario": about, "runs": RUNS, "recorded": kept, "races": races}))
        pytest.skip(f"recorded in {RUNS} runs")
    recording = json.loads(path.read_text())
    (recorder,) = recorders
    title = f"scenario {name} is not as recorded in {path.name}"
    try:
        await run(scenario, make_app, recorder)
    except Exception as error:  # it waits for what does not come: what came instead tells why
        error.add_note("\n".join([title, *compared(recording, recorder)]))
        raise
    if found := compared(recording, recorder):
        pytest.fail("\n".join([title, *found]), pytrace=False)


def compared(recording: Record, recorder: Recorder) -> list[str]:
    return differences(recording["recorded"], recording["races"], recorder.record())


def test_each_scenario_is_recorded_and_each_recording_has_a_scenario() -> None:
    assert {path.stem for path in RECORDED.glob("*.json")} == set(SCENARIOS)


def test_what_differs_between_runs_is_a_race_and_is_not_compared() -> None:
    first = {"a": ["x"], "b": {"same": 1, "other": 1}, "c": [1], LIVES: {"idle": 2, "dead": 1}}
    second = {"a": ["x"], "b": {"same": 1, "other": 2}, "c": [2], LIVES: {"idle": 3}}
    kept, races = merge([first, second])
    assert kept == {"a": ["x"], "b": {"same": 1}, LIVES: {"idle": 2}}
    assert races == {"b: other": [1, 2], "c": [[1], [2]], LIVES: [{"dead": 1}, {"idle": 1}]}
    for run in (first, second):
        assert differences(kept, races, run) == []


@pytest.mark.parametrize(
    ("run", "text"),
    [
        ({"a": ["y"], LIVES: {"idle": 2}}, '- "x"\n+ "y"'),
        ({"a": ["x"], LIVES: {"idle": 1}}, '- "idle": 2\n+ "idle": 1'),
        ({"a": ["x"], LIVES: {"idle": 2, "dead": 1}}, '+ "dead": 1'),
        ({"a": ["x"], LIVES: {"idle": 2}, "new": [1]}, "--- new"),
        ({LIVES: {"idle": 2}}, "+(nothing)"),
    ],
)
def test_each_difference_is_shown(run: Record, text: str) -> None:
    (found,) = differences({"a": ["x"], LIVES: {"idle": 2}}, {}, run)
    assert text in found
