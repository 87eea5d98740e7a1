"""The states table, exhaustively: every state with every event."""

from __future__ import annotations

import itertools
from dataclasses import fields

import pytest

from greenroom.options import PoolOptions
from greenroom.pool import process
from greenroom.pool.states import DEADLINES, LIVE, TABLE, Event, IllegalTransition, State, next_state
from greenroom.wire.messages import AppFacts

S, E = State, Event

LINE = [S.REQUESTED, S.FORKED, S.WARMING, S.IDLE, S.CLAIMED, S.RUNNING, S.DRAINING, S.EXITED, S.REAPED]
STEPS = [E.FORK_ANSWERED, E.HELLO, E.WARM, E.CLAIM, E.STARTED, E.ENDED, E.DEATH, E.REAP]
SAID_BY_THE_CHILD = {E.HELLO, E.WARM, E.PREWARM_FAILED, E.ANSWERED, E.STARTED, E.ENDING, E.ENDED, E.CLEANING_UP}
BEFORE_THE_END = [S.FORKED, S.WARMING, S.IDLE, S.RESERVED, S.CLAIMED, S.RUNNING, S.ENDING, S.DRAINING]


def documented() -> dict[tuple[State, Event], State]:
    """What the design says, in another form than the table's."""
    found = {(state, event): after for state, event, after in zip(LINE, STEPS, LINE[1:], strict=False)}
    found |= {(state, E.DEATH): S.EXITED for state in [*BEFORE_THE_END, S.KILLING]}
    found |= {(state, E.KILL): S.KILLING for state in [S.REQUESTED, *BEFORE_THE_END, S.KILLING]}
    found |= {(S.REQUESTED, E.FORK_FAILED): S.REAPED, (S.KILLING, E.FORK_FAILED): S.REAPED}
    found |= {(S.WARMING, E.PREWARM_FAILED): S.KILLING, (S.DRAINING, E.CLEANING_UP): S.DRAINING}
    # A session that is offered before it is ordered holds its process; asking it changes nothing.
    found |= {(S.IDLE, E.RESERVE): S.RESERVED, (S.RESERVED, E.ANSWERED): S.RESERVED}
    found |= {(S.RESERVED, E.RELEASE): S.IDLE, (S.RESERVED, E.CLAIM): S.CLAIMED}
    # A job may have an end of its own, and may have begun it when an order to end came.
    found |= {(S.RUNNING, E.ENDING): S.ENDING, (S.ENDING, E.ENDED): S.DRAINING, (S.KILLING, E.SPARE): S.ENDING}
    # What was sent before the signal hit, or before the death was known, changes nothing any more.
    found |= {(S.KILLING, event): S.KILLING for event in {E.FORK_ANSWERED, *SAID_BY_THE_CHILD}}
    found |= {(S.EXITED, event): S.EXITED for event in {E.KILL, E.DEATH, *SAID_BY_THE_CHILD}}
    found |= {(S.EXITED, E.REAP): S.REAPED, (S.REAPED, E.KILL): S.REAPED}
    return found


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_state_with_every_event(state: State, event: Event) -> None:
    after = documented().get((state, event))
    if after is None:
        with pytest.raises(IllegalTransition, match=f"{event.value}.*{state.value}"):
            next_state(state, event)
    else:
        assert next_state(state, event) is after


def test_the_table_has_a_row_for_every_state() -> None:
    assert set(TABLE) == set(DEADLINES) == set(State)


@pytest.mark.parametrize("state", sorted(LIVE, key=lambda state: state.value))
def test_a_live_process_can_be_killed_and_can_die(state: State) -> None:
    assert next_state(state, E.KILL) is S.KILLING
    assert next_state(state, E.DEATH) is S.EXITED


def test_live_are_the_states_with_a_process() -> None:
    assert set(State) - LIVE == {S.REQUESTED, S.EXITED, S.REAPED}


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_deadline_but_idle(state: State) -> None:
    name = DEADLINES[state]
    if state in (S.IDLE, S.REAPED):  # the one waits for as long as it takes, of the other nothing is left
        assert name is None
    else:
        assert name is not None
        facts = {field.name for field in fields(AppFacts)}
        assert hasattr(PoolOptions, name) or name in facts or getattr(process, name) > 0


@pytest.mark.parametrize("state", list(State))
def test_reaped_can_be_reached_from_everywhere(state: State) -> None:
    assert S.REAPED in reachable(state)


def test_nothing_leaves_reaped() -> None:
    assert reachable(S.REAPED) == {S.REAPED}


@pytest.mark.parametrize("state", [S.KILLING, S.EXITED])
def test_a_process_that_is_ending_takes_no_job(state: State) -> None:
    assert reachable(state) <= {S.KILLING, S.ENDING, S.DRAINING, S.EXITED, S.REAPED}
    assert all(E.CLAIM not in TABLE[after] for after in reachable(state))


def test_a_job_runs_only_by_the_acknowledgement_of_a_claimed_process() -> None:
    assert ways_into(S.RUNNING) == {(S.CLAIMED, E.STARTED)}
    assert ways_into(S.CLAIMED) == {(S.IDLE, E.CLAIM), (S.RESERVED, E.CLAIM)}


def ways_into(wanted: State) -> set[tuple[State, Event]]:
    return {(state, event) for state, row in TABLE.items() for event, after in row.items() if after is wanted}


def reachable(state: State) -> set[State]:
    found, border = {state}, {state}
    while border:
        border = {after for before in border for after in TABLE[before].values()} - found
        found |= border
    return found
