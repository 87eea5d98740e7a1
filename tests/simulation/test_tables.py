"""What holds of the tables themselves, without any history."""

from __future__ import annotations

from typing import Any

import pytest

from greenroom.pool.core import generation, job, launcher, process, questions
from greenroom.pool.core.state_machine import Machine, Row
from greenroom.pool.core.states import (
    AskState,
    Bound,
    GenerationState,
    JobState,
    LauncherState,
    ProcessState,
)

from .coverage import TABLES, all_rows

STATES: dict[str, Any] = {
    "process": ProcessState,
    "job": JobState,
    "launcher": LauncherState,
    "generation": GenerationState,
    "questions": AskState,
}
MACHINES: dict[str, Machine] = {
    "process": process.machine,
    "job": job.machine,
    "launcher": launcher.machine,
    "generation": generation.machine,
    "questions": questions.machine,
}
UNBOUNDED: dict[str, dict[Any, str]] = {
    "process": process.UNBOUNDED,
    "job": job.UNBOUNDED,
    "launcher": launcher.UNBOUNDED,
    "generation": generation.UNBOUNDED,
}


@pytest.mark.parametrize("name", TABLES)
def test_each_state_has_its_rows(name: str) -> None:
    assert set(TABLES[name]) == set(STATES[name])


@pytest.mark.parametrize("name", TABLES)
def test_each_state_is_left_or_last(name: str) -> None:
    for state, rows in TABLES[name].items():
        assert not rows or any(row.then is not state for row in rows.values()), state


@pytest.mark.parametrize("name", TABLES)
def test_each_state_is_reached(name: str) -> None:
    table = TABLES[name]
    reached = {row.then for rows in table.values() for row in rows.values()}
    first = next(iter(table))
    launcher_first = {LauncherState.WAITING}
    assert set(table) - reached <= {first, *launcher_first}


@pytest.mark.parametrize("name", TABLES)
def test_the_machine_is_driven_by_the_table(name: str) -> None:
    assert MACHINES[name].table is TABLES[name]


@pytest.mark.parametrize("name", UNBOUNDED)
def test_a_state_with_a_deadline_has_a_row_for_its_passing(name: str) -> None:
    for state, rows in TABLES[name].items():
        events = {event.name for event in rows}
        assert state in UNBOUNDED[name] or "OVERDUE" in events, state


@pytest.mark.parametrize("name", UNBOUNDED)
def test_a_state_without_a_deadline_is_entered_without_one(name: str) -> None:
    optional = {Bound.JOB}  # it can be off
    for rows in TABLES[name].values():
        for event, row in rows.items():
            if row.then in UNBOUNDED[name]:
                assert row.bound in {Bound.NONE, Bound.KEEP, *optional}, (row.then, event)


def test_rows_that_do_nothing_change_nothing() -> None:
    for table in TABLES.values():
        for state, rows in table.items():
            for row in rows.values():
                if not row.do and row.then is state:
                    assert row == Row(state) or row.bound is not Bound.NONE


def test_rows_have_names_of_their_own() -> None:
    names = list(all_rows().values())
    assert len(names) == len(set(names)) == sum(len(rows) for table in TABLES.values() for rows in table.values())
