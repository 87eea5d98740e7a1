"""Is the event loop of a job, or a zygote, standing still, and why? Pure: samples in, a classification out."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["FULL_DUMP", "SHORT_DUMP", "DumpPatience", "DumpTime", "Patience", "Sample", "Stall", "classify"]


class Stall(Enum):
    LOOP_BLOCKED = "loop blocked"
    """Something blocks the event loop, while other threads of the process still run Python."""
    GIL_HELD = "GIL held"
    """Not even another thread can run Python: C code holds the interpreter lock."""
    STOPPED = "stopped"
    """A signal or a debugger has stopped the process."""
    STARVED = "starved of CPU"
    """It is ready to run, but the machine is too busy. Not its fault, and no reason to kill it."""


class Sample(NamedTuple):
    """What is seen of a process at one moment; times are seconds."""

    at: float
    loop_beat: int
    thread_beat: int
    state: str
    cpu: float
    """CPU time that its main thread has used."""
    waited: float
    """Time that its main thread was ready to run but had no CPU."""


def classify(last_beat: Sample, before: Sample, now: Sample, timeout: float) -> Stall | None:
    """Why the loop has not beaten for ``timeout`` seconds; ``None`` if it has.

    ``last_beat`` is the sample of when it was last seen to beat, ``before`` one that is a part of
    the timeout ago, to tell whether the thread still beats.
    """
    elapsed = now.at - last_beat.at
    if now.loop_beat != last_beat.loop_beat or elapsed < timeout:
        return None
    if now.state in ("T", "t"):
        return Stall.STOPPED
    # A loop that gets some CPU, however late, beats as soon as it has had a little of it. One that
    # has used up half a timeout of CPU time without a beat is busy with something else. A wait is put
    # on its account when it is over; while it lasts, it shows in the state alone.
    waits = now.state == "R" or now.waited - last_beat.waited > elapsed / 2
    if waits and now.cpu - last_beat.cpu < timeout / 2:
        return Stall.STARVED
    return Stall.LOOP_BLOCKED if now.thread_beat != before.thread_beat else Stall.GIL_HELD


class Patience:
    """How long a zygote is waited for that does not answer a request; it beats by answering others.

    One that hangs is given up after two looks, of which each is ``interval`` seconds after what was before. One that
    gets on, or is starved, is given up after ``longest`` seconds.
    """

    def __init__(self, interval: float, longest: float) -> None:
        self._interval = interval
        self._longest = longest
        self._first: Sample | None = None
        self._before: Sample | None = None
        self.is_starved = False

    def ends_with(self, now: Sample) -> bool:
        """Whether it has ended, by how the zygote looks now. To be asked every ``interval`` seconds."""
        before, self._before = self._before, now
        if before is None or self._first is None:
            self._first = now
            return False
        stall = classify(before, before, now, self._interval)
        self.is_starved = stall is Stall.STARVED
        is_late = now.at - self._first.at + self._interval >= self._longest
        return is_late or stall not in (None, Stall.STARVED)


class DumpTime(NamedTuple):
    """Seconds for a process to write its stacks, before it is killed."""

    with_cpu: float
    """Without those in which it waits for a CPU."""
    longest: float
    """In all, with those."""


FULL_DUMP = DumpTime(1.0, 10.0)
"""For a process that hangs: it writes its stacks in milliseconds, once it gets the CPU."""
SHORT_DUMP = DumpTime(0.03, 0.03)
"""For a process whose memory goes on growing while it writes."""


_FIRST_PAUSE, _LONGEST_PAUSE, _SHORTEST_PAUSE = 0.004, 0.05, 0.001
"""Seconds between two looks: each reads four files, and many processes may be killed at once."""


class DumpPatience:
    """Bound the wait for a process that writes its stacks."""

    def __init__(self, time: DumpTime) -> None:
        self._time = time
        self._first: Sample | None = None
        self._before: Sample | None = None
        self._counted = 0.0
        self._pause = _FIRST_PAUSE

    def ends_with(self, now: Sample) -> bool:
        """Tell whether it has ended, by how the process looks now."""
        before, self._before = self._before, now
        if before is None or self._first is None:
            self._first = now
            return False
        # A wait is put on its account when it is over; while it lasts, it shows in the state alone.
        waits = now.state == "R" and now.cpu == before.cpu
        if not waits:
            self._counted += max(now.at - before.at - (now.waited - before.waited), 0.0)
        return self._counted >= self._time.with_cpu or now.at - self._first.at >= self._time.longest

    def pause(self) -> float:
        """Return the seconds until the next look: each pause is twice the one before, and none outlasts the time."""
        elapsed = 0.0 if self._first is None or self._before is None else self._before.at - self._first.at
        left = min(self._time.with_cpu - self._counted, self._time.longest - elapsed)
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return max(min(pause, left), _SHORTEST_PAUSE)
