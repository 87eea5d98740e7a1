"""The simulator finds mutations of the core, and the deletion of each row of its tables."""

from __future__ import annotations

import json

import pytest

from .coverage import all_rows
from .hunt import DATA, without_row
from .lives import live
from .mutations import EQUIVALENT, MUTATIONS, mutated
from .plans import draw_plan

SEEDS: dict[str, dict[str, int]] = json.loads(DATA.read_text())
AGAIN = "Look for others: python -m tests.simulation.hunt"


@pytest.mark.parametrize("name", [name for name in MUTATIONS if name not in EQUIVALENT])
def test_a_mutation_is_found(name: str) -> None:
    """Each has a seed of which it is known that its history shows the mutation, and nothing without it."""
    plan = draw_plan(SEEDS["mutations"][name], promises=False)
    assert not live(plan).oracle
    with mutated(name):
        assert live(plan).oracle, f"{AGAIN} mutations --write"


@pytest.mark.parametrize("name", sorted(all_rows().values()))
def test_the_deletion_of_a_row_is_noticed(name: str) -> None:
    plan = draw_plan(SEEDS["rows"][name], promises="PROMISE" in name)
    assert not live(plan).oracle
    with without_row(name):
        assert live(plan).oracle, f"{AGAIN} rows --write"


def test_equivalent_mutations_have_a_reason() -> None:
    assert set(EQUIVALENT) <= set(MUTATIONS)
    assert all(EQUIVALENT.values())


def test_there_are_mutations_of_each_kind() -> None:
    assert len(MUTATIONS) - len(EQUIVALENT) >= 25
