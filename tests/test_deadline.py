"""A deadline on a clock that is turned by hand."""

from __future__ import annotations

from greenroom.pool.clock import AwakeClock
from greenroom.pool.deadline import Deadline


class Scene:
    """A deadline, and the names of those that have passed."""

    def __init__(self) -> None:
        self.time = 100.0
        self.clock = AwakeClock(lambda: self.time)
        self.deadline = Deadline(self.clock)
        self.passed: list[str] = []

    def set(self, seconds: float, name: str) -> None:
        self.deadline.set(seconds, self.passed.append, name)

    def wait(self, seconds: float) -> None:
        """In small steps: the clock leaves out whatever looks like a pause."""
        for _ in range(int(seconds / 0.25)):
            self.time += 0.25
            self.clock.advance()


def test_the_last_one_that_is_set_counts_and_passes_once() -> None:
    scene = Scene()
    scene.set(1, "first")
    scene.set(2, "second")
    scene.wait(9)
    assert scene.passed == ["second"]
    scene.set(1, "third")
    scene.deadline.clear()
    scene.wait(9)
    assert scene.passed == ["second"]


def test_while_it_is_held_its_time_stands_still() -> None:
    scene = Scene()
    scene.set(4, "held")
    scene.wait(3)
    for _ in range(2):
        scene.deadline.hold()
    scene.wait(9)
    for _ in range(2):
        scene.deadline.go_on()
    scene.wait(0.75)
    assert scene.passed == []
    scene.wait(0.5)
    assert scene.passed == ["held"]


def test_one_that_is_set_during_a_hold_begins_at_its_end() -> None:
    scene = Scene()
    scene.deadline.hold()
    scene.set(2, "replaced")
    scene.set(4, "set")
    scene.wait(9)
    scene.deadline.go_on()
    scene.wait(3.75)
    assert scene.passed == []
    scene.wait(0.5)
    assert scene.passed == ["set"]


def test_what_passes_may_set_the_next() -> None:
    scene = Scene()
    scene.deadline.set(1, scene.set, 1, "next")
    scene.wait(9)
    assert scene.passed == ["next"]


def test_nothing_is_called_when_a_hold_without_a_deadline_ends() -> None:
    scene = Scene()
    scene.set(2, "cleared")
    scene.deadline.hold()
    scene.deadline.clear()
    scene.deadline.go_on()
    scene.wait(9)
    assert scene.passed == []
