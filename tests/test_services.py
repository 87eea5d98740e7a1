"""When a service of the zygote's is started again: pure, with the time passed in. And where it may listen."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest

from greenroom.zygote import services as module
from greenroom.zygote.services import Services, address_of, addresses, listen


def serve(listener: object, pause: float) -> int:
    raise NotImplementedError


def test_nothing_is_due_where_nothing_is_wanted() -> None:
    services = Services()
    assert services.due(0.0) == []
    assert services.seconds_to_next(0.0) is None
    assert services.died(1, 0.0) is None


def test_each_death_in_a_row_is_followed_by_a_longer_pause() -> None:
    services = Services()
    services.want({"model": serve}, 100.0)
    now, pauses = 100.0, []
    for pid in range(1, 15):
        assert services.due(now) == [("model", serve)]
        services.started("model", pid, now)
        assert services.pids == {pid}
        assert services.seconds_to_next(now) is None
        now += 1.0
        assert services.died(pid, now) == "model"
        pause = services.seconds_to_next(now)
        assert pause is not None
        assert services.due(now) == []
        pauses.append(pause)
        now += pause + 0.001
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.1
    assert 29.9 < pauses[-1] < 30.1


def test_one_that_has_lived_for_long_is_started_again_at_once() -> None:
    services = Services()
    services.want({"model": serve}, 0.0)
    now = 0.0
    for pid in (1, 2, 3):
        services.started("model", pid, now)
        services.died(pid, now + 1.0)
        now += 10.0
    services.started("model", 4, now)
    services.died(4, now + 3600.0)
    pause = services.seconds_to_next(now + 3600.0)
    assert pause is not None
    assert pause < 0.1


def test_one_that_could_not_be_forked_is_tried_again() -> None:
    services = Services()
    services.want({"model": serve}, 0.0)
    services.failed("model", 0.0)
    assert services.due(0.0) == []
    assert services.due(1.0) == [("model", serve)]


def test_one_that_has_told_its_callers_why_is_started_again_at_once() -> None:
    services = Services()
    services.want({"model": serve}, 0.0)
    now, pauses = 0.0, []
    for pid in range(1, 6):
        services.started("model", pid, now)
        pauses.append(services.pause("model"))
        now += 1000.0 + pauses[-1]  # a load that takes long is not a sign of health
        assert services.died(pid, now, has_paused=True) == "model"
        assert services.seconds_to_next(now) == 0.0
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8]


def test_one_that_dies_at_once_with_the_exit_code_of_a_pause_has_its_pause_all_the_same() -> None:
    services = Services()
    services.want({"model": serve}, 0.0)
    services.started("model", 1, 0.0)
    assert services.died(1, 0.001, has_paused=True) == "model"
    assert services.due(0.001) == []
    assert services.due(0.1) == [("model", serve)]


def test_the_own_zygotes_address_comes_first_then_those_of_its_generation_then_newer_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_POOL", f"test-{os.getpid()}")
    assert addresses("model", 2) == []
    with ExitStack() as stack:
        made = []
        for zygote, generation in (("a", 1), ("b", 3), ("c", 2)):  # each random part stands for a zygote
            monkeypatch.setattr(module, "_NONCE", zygote)
            stack.enter_context(listen("model", generation))
            stack.enter_context(listen("other", generation))
            made.append(address_of("model", generation))
        old, new, own = made
        assert addresses("model", 2) == [own]
        assert addresses("model", 1) == [old]  # of a lost zygote, whose place another one has taken
        assert addresses("model", 4) == [new, own, old]
        assert addresses("none", 2) == []
