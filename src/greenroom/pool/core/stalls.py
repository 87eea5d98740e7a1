"""Stalls of an event loop or a zygote: their classification, and the time until the pool acts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

__all__ = ["FULL_DUMP", "SHORT_DUMP", "DumpPatience", "DumpTime", "Patience", "Sample", "Stall", "classify"]


class Stall(Enum):
    LOOP_BLOCKED = "loop blocked"
    """Something blocks the event loop, while other threads of the process still run Python."""
    GIL_HELD = "GIL held"
    """No thread of the process can run Python, because C code holds the interpreter lock (GIL)."""
    STOPPED = "stopped"
    """A signal or a debugger has stopped the process."""
    STARVED = "starved of CPU"
    """The process is ready to run, but the machine is too busy. This is no reason to kill the process."""


class Sample(NamedTuple):
    """Sample of a process at one moment. Times are in seconds."""

    at: float
    loop_beat: int
    thread_beat: int
    state: str
    """Letter of the state, as in /proc/pid/stat (proc(5))."""
    cpu: float
    """CPU time that the main thread has used."""
    waited: float
    """Time in which the main thread was ready to run but had no CPU."""


def classify(last_beat: Sample, before: Sample, now: Sample, timeout: float) -> Stall | None:
    """Return the kind of stall of a loop without a beat for ``timeout`` seconds; ``None`` without a stall.

    ``last_beat`` is the sample at the latest change of the loop's beat. ``before`` is a more recent sample,
    which shows if the thread still beats.
    """
    elapsed = now.at - last_beat.at
    if now.loop_beat != last_beat.loop_beat or elapsed < timeout:
        return None
    if now.state in ("T", "t"):
        return Stall.STOPPED
    # A starved loop beats as soon as it gets a little CPU. A loop that has used CPU for half the timeout without a
    # beat is busy with something else. The kernel adds a wait for the CPU to ``waited`` only when the wait is over.
    # Before that, only the state shows the wait.
    waits = now.state == "R" or now.waited - last_beat.waited > elapsed / 2
    if waits and now.cpu - last_beat.cpu < timeout / 2:
        return Stall.STARVED
    return Stall.LOOP_BLOCKED if now.thread_beat != before.thread_beat else Stall.GIL_HELD


_HANGS = "it hangs"


@dataclass(slots=True)
class Patience:
    """Patience with a zygote that does not answer a request. Answers to other requests are its beats.

    The zygote is sampled every ``interval`` seconds. A zygote that hangs between two samples is given
    up. A zygote that answers other requests, or is starved of CPU, is given up after ``longest`` seconds.
    """

    interval: float
    longest: float
    is_starved: bool = False
    finding: str = ""
    """Finding of the latest sample, for log lines."""
    _first: Sample | None = None
    _before: Sample | None = None

    def ends_with(self, now: Sample) -> bool:
        """Return true if this sample of the zygote ends the patience. Call it every ``interval`` seconds."""
        before, self._before = self._before, now
        if before is None or self._first is None:
            self._first = now
            return False
        stall = classify(before, before, now, self.interval)
        self.is_starved = stall is Stall.STARVED
        self.finding = "it is slow" if stall is None else "stopped" if stall is Stall.STOPPED else _HANGS
        if stall is Stall.STARVED:
            self.finding = stall.value
        is_late = now.at - self._first.at + self.interval >= self.longest
        return is_late or stall not in (None, Stall.STARVED)


class DumpTime(NamedTuple):
    """Seconds that a process has to write its stacks before SIGKILL."""

    with_cpu: float
    """Seconds without the time in which the process waits for a CPU."""
    longest: float
    """Seconds in all, with the time in which the process waits for a CPU."""


FULL_DUMP = DumpTime(1.0, 10.0)
"""Time for a process that hangs. With a CPU, a process writes its stacks in milliseconds."""
SHORT_DUMP = DumpTime(0.03, 0.03)
"""Time for a process whose memory goes on growing while it writes its stacks."""


_FIRST_PAUSE, _LONGEST_PAUSE, _SHORTEST_PAUSE = 0.004, 0.05, 0.001
"""Seconds between two samples. Each sample reads four files, and many processes may be killed at once."""


class DumpPatience:
    """Bound of the wait for a process that writes its stacks."""

    def __init__(self, time: DumpTime) -> None:
        self._time = time
        self._first: Sample | None = None
        self._before: Sample | None = None
        self._counted = 0.0
        self._pause = _FIRST_PAUSE

    def ends_with(self, now: Sample) -> bool:
        """Return true if this sample of the process ends the wait."""
        before, self._before = self._before, now
        if before is None or self._first is None:
            self._first = now
            return False
        # The kernel adds a wait to ``waited`` only when the wait is over. Before that, only the state shows the wait.
        waits = now.state == "R" and now.cpu == before.cpu
        if not waits:
            self._counted += max(now.at - before.at - (now.waited - before.waited), 0.0)
        return self._counted >= self._time.with_cpu or now.at - self._first.at >= self._time.longest

    def pause(self) -> float:
        """Return the seconds until the next sample. Each pause is twice the one before, up to the time that is left."""
        elapsed = 0.0 if self._first is None or self._before is None else self._before.at - self._first.at
        left = min(self._time.with_cpu - self._counted, self._time.longest - elapsed)
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return max(min(pause, left), _SHORTEST_PAUSE)
