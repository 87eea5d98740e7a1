"""How many processes may become warm at once."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from greenroom.pool.core.sizing import Crowd

BOUND = 8
bounds = st.integers(1, 12)


@given(bounds, st.lists(st.tuples(st.booleans(), st.integers(0, 11)), max_size=80))
def test_the_number_stays_between_one_and_the_bound_and_each_change_is_told(
    bound: int, story: list[tuple[bool, int]]
) -> None:
    crowd, names = Crowd(), map(str, itertools.count())
    for is_late, beside in story:
        before = crowd.bounded(bound)
        others = [next(names) for _ in range(min(beside, before - 1))]
        if is_late:
            told = crowd.missed(next(names), others, bound)
            assert crowd.bounded(bound) <= before
            assert told <= bool(others)
        else:
            told = crowd.kept(next(names), others, bound)
            assert before <= crowd.bounded(bound) <= before + 1
        assert 1 <= crowd.bounded(bound) <= bound
        assert told or crowd.bounded(bound) == before


@given(st.integers(2, 12))
def test_a_crowd_that_misses_its_time_together_is_halved_once(size: int) -> None:
    crowd, members = Crowd(), [str(number) for number in range(size)]
    told = [crowd.missed(member, members[index + 1 :], size) for index, member in enumerate(members)]
    assert told == [True] + [False] * (size - 1)
    assert crowd.bounded(size) == size // 2


def test_one_that_is_late_alone_says_nothing_about_a_crowd() -> None:
    crowd = Crowd()
    assert not crowd.missed("slow", [], BOUND)
    assert crowd.bounded(BOUND) == BOUND


def test_who_kept_the_time_in_the_old_crowd_does_not_make_the_new_one_grow() -> None:
    crowd = Crowd()
    crowd.missed("late", ["a", "b", "c"], BOUND)
    assert not any(crowd.kept(name, [], BOUND) for name in "abc")
    assert crowd.bounded(BOUND) == 2


@given(st.integers(1, 8), st.integers(2, 12))
def test_it_finds_what_the_machine_bears_and_seldom_tries_more(bears: int, bound: int) -> None:
    """Where more than ``bears`` at once miss their time, few of many processes do in the long run."""
    crowd, names, late = Crowd(), map(str, itertools.count()), []
    for _ in range(200):
        size = crowd.bounded(bound)
        members = [next(names) for _ in range(size)]
        late.append(size if size > bears else 0)
        for index, member in enumerate(members):
            if size > bears:
                crowd.missed(member, members[index + 1 :], bound)
            else:
                crowd.kept(member, members[index + 1 :], bound)
    if bears >= bound:
        assert sum(late) == 0
    else:
        assert sum(bool(one) for one in late[100:]) <= 8


def test_the_whole_bound_comes_back_when_the_load_is_over() -> None:
    crowd, names = Crowd(), map(str, itertools.count())
    crowd.missed(next(names), [next(names) for _ in range(BOUND - 1)], BOUND)
    for _ in range(100):
        crowd.kept(next(names), [], BOUND)
    assert crowd == Crowd()
