"""Whose SIGKILL it was: the bookkeeping, with the kernel's figures passed in. The real thing is J4."""

from __future__ import annotations

from greenroom.pool.shell.oom import OomCounter


class Kernel:
    """What the kernel would tell."""

    def __init__(self, log: set[int] | None) -> None:
        self.kills = 5
        self.time = 0.0
        self.log = log

    def counter(self) -> OomCounter:
        return OomCounter(lambda: self.kills, self.names_victim, lambda: self.time)

    def names_victim(self, pid: int) -> bool | None:
        return None if self.log is None else pid in self.log


def test_without_a_new_kill_nothing_is_put_down_to_it() -> None:
    assert not Kernel({7}).counter().has_struck(7)


def test_each_kill_explains_one_death() -> None:
    kernel = Kernel(None)
    counter = kernel.counter()
    kernel.kills += 2
    assert [counter.has_struck(pid) for pid in (7, 8, 9)] == [True, True, False]


def test_somebody_elses_victim_is_not_taken_for_ours() -> None:
    kernel = Kernel({99})
    counter = kernel.counter()
    kernel.kills += 1
    assert not counter.has_struck(7)
    kernel.log = {99, 8}
    kernel.kills += 1
    assert counter.has_struck(8)


def test_an_old_kill_explains_nothing() -> None:
    kernel = Kernel(None)
    counter = kernel.counter()
    kernel.kills += 1
    counter.look()
    kernel.time = 60.0
    assert not counter.has_struck(7)
