"""Simulated histories, recorded by the flight recorder."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from greenroom.pool.flight_recorder.recorder import Recorder
from greenroom.pool.flight_recorder.storage import Memory

from .plans import Plan
from .world import World

__all__ = ["record", "recorded_by"]


def record(plan: Plan, *, begin: int = 0, most: int = 2**26, has_all_states: bool = False) -> bytes:
    """Return the recording of a history, from its event number ``begin`` on, within ``most`` bytes.

    States are written in slices, between other events, as chance has it; or whole, after each event.
    """
    world, rng, later = World(plan), random.Random(f"flight {plan.seed}"), list[Callable[[], object]]()
    handle, handled = world.core.handle, 0
    recorder: Recorder | None = None

    def recording(event: Any, now: float) -> list[Any]:
        nonlocal recorder, handled
        if has_all_states or rng.random() < 0.3:
            _do(later)
        effects = handle(event, now)
        handled += 1
        if recorder is not None:
            if has_all_states:
                recorder._full_at = 0
            recorder.note(event, now, effects)
            if has_all_states:
                recorder.flush()
        elif handled >= begin:
            recorder = Recorder(world.core, Memory(), most, later.append)
        return effects

    world.core.handle = recording  # type: ignore[method-assign]
    world.run()
    _do(later)
    return b"" if recorder is None else recorded_by(recorder)


def recorded_by(recorder: Recorder) -> bytes:
    """Return what a recorder has, and close it."""
    assert recorder.is_on
    pieces = []
    for fd, size in recorder.parts():
        pieces.append(os.pread(fd, size, 0))
        os.close(fd)
    recorder.close()
    return b"".join(pieces)


def _do(later: list[Callable[[], object]]) -> None:
    while later:
        later.pop(0)()
