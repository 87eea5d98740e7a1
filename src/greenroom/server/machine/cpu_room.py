"""Room for a further job by CPU time: jobs are rejected before the running ones come late.

The measure is the time that the main thread of a session waits for a CPU each time that it has work. The kernel counts
the seconds in the run queue (``/proc/PID/schedstat``, sched-stats.rst), and how often the thread has slept before
(``voluntary_ctxt_switches``, proc(5)). A session with a frame of audio every 20 ms is late when one such wait is long.
A session that seldom sleeps computes, and nobody hears it wait. The use of the CPUs alone is no such measure: jobs that
only compute use all of them and delay nobody.

What one more session would do is expected from what it takes, and from the CPUs that nobody uses.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ...pool import PoolStats
from ...system import proc
from ...system.free_cpus import FreeCpus
from ...system.machine_limits import usable_cpus

__all__ = ["CpuCosts", "CpuMeter", "CpuRoom", "CpuSample", "further_sessions"]

INTERVAL = 1.0
"""Seconds between two samples."""
SETTLED = 4.0
"""Seconds after which a session has started up. The CPU time that it takes before is that of its start-up."""
PANEL = 32
"""Most sessions that are sampled, so that 1,000 sessions cost no more than 32."""
WEIGHT = 0.5
"""Weight of the latest sample in the mean wait."""
COST_WEIGHT = 0.1
"""Weight of the latest sample in the CPU time of sessions, which changes slowly."""
FEWEST_WAKE_UPS = 20
"""Wake-ups of all sampled sessions together, to which at least their waits are spread. So one long wait of a few
sessions that are mostly idle says little."""
SELDOM = 10.0
"""Wake-ups in a second. With fewer, the waits of a session do not count: it computes, or has hardly anything to do."""
COMPUTES = 0.5
"""CPUs of a session on average, from which on nobody can know what one more of them would need. Then only the wait
counts."""
NOTICEABLE = 0.25
"""Part of the longest wait, up to which no session is rejected for what is expected of one more."""


@dataclass(frozen=True, slots=True)
class CpuSample:
    """Counts of one session since the start of its process."""

    used: float
    """CPU seconds of all threads."""
    waited: float
    """Seconds that the main thread waited for a CPU."""
    wake_ups: int
    """Number of times that the main thread had work after it had slept."""


@dataclass(frozen=True, slots=True)
class CpuCosts:
    """CPU time that sessions of this app take, and their waits for a CPU."""

    cpus: float
    """CPUs that the worker may use."""
    free: float | None = None
    """CPUs that nobody uses, once the sessions that start up have settled; ``None`` if nobody knows."""
    wait_ms: float = 0.0
    """Mean wait for a CPU, each time that a session has work; 0 without sessions."""
    session_cpus: float | None = None
    """CPUs that a session takes after its start-up, on average; ``None`` before the first sample."""
    start_seconds: float | None = None
    """CPU seconds of a session's process before it and in its start-up; ``None`` before the first sample."""
    sessions: int = 0
    """Sessions that ran at the latest sample. The wait is one beside so many."""


def further_sessions(costs: CpuCosts, jobs: int, longest_wait_ms: float) -> int | None:
    """Return for how many more sessions there is CPU time; ``None`` if nobody knows. Pure.

    ``jobs`` counts all accepted jobs, also those that do not run yet.
    """
    each = costs.session_cpus
    if each is None or each >= COMPUTES:
        return 0 if costs.wait_ms > longest_wait_ms else None
    # Near full use, the wait in a queue grows as 1 / (1 - use). So with a part of the free CPUs left, it is that much
    # longer. What may be used is the rest, when the wait has become the longest.
    free = max(costs.cpus - each * costs.sessions, 0.0) if costs.free is None else costs.free
    usable = free * (1 - min(costs.wait_ms / longest_wait_ms, 1.0))
    room = max(math.floor(usable / max(each, 1e-4) + 1e-9) - max(jobs - costs.sessions, 0), 0)
    return room if costs.wait_ms > NOTICEABLE * longest_wait_ms else max(room, 1)


class CpuMeter:
    """Figures of the sessions, from samples of some of them. Pure: each call gets the time and the samples."""

    def __init__(self, cpus: float) -> None:
        self.costs = CpuCosts(cpus)
        self._began: dict[str, tuple[float, float]] = {}
        """For each session that starts up: time of its first sample, and the CPU seconds that it has used."""
        self._often_asleep: set[str] = set()
        """Sessions whose waits count. One that comes too late for everything sleeps no more, and still counts."""
        self._then: float | None = None
        """Time of the latest samples."""
        self._settled: dict[str, tuple[float, CpuSample]] = {}
        """For each other session: time of its latest sample, and the sample."""

    def note(self, now: float, samples: Mapping[str, CpuSample], sessions: int, free: float | None) -> None:
        """Take in one sample of each watched session.

        ``sessions`` is the number of all that run, and ``free`` that of the CPUs that nobody has used since the last
        samples.
        """
        waited, wake_ups, used, seconds = 0.0, 0, 0.0, 0.0
        settled: dict[str, tuple[float, CpuSample]] = {}
        starting: dict[str, tuple[float, float]] = {}
        since, self._then = self._then, now
        start_used, start_limit = 0.0, 0.0 if since is None else now - since
        for session, sample in samples.items():
            if session in self._settled:
                then, before = self._settled[session]
                used, seconds = used + sample.used - before.used, seconds + now - then
                if sample.wake_ups - before.wake_ups >= SELDOM * (now - then):
                    self._often_asleep.add(session)
                if session in self._often_asleep:
                    waited += sample.waited - before.waited
                    wake_ups += sample.wake_ups - before.wake_ups
            else:
                began, used_before = self._began.get(session, (now, max(sample.used - start_limit, 0.0)))
                if now - began < SETTLED:
                    starting[session] = (began, sample.used)
                    start_used += sample.used - used_before
                    continue
                self._note_start(sample.used)
            settled[session] = (now, sample)
        self._settled, self._began = settled, starting
        self._often_asleep &= settled.keys()
        wait_ms = 1000 * waited / max(wake_ups, FEWEST_WAKE_UPS)
        costs = replace(self.costs, wait_ms=_mean(self.costs.wait_ms, wait_ms, WEIGHT), sessions=sessions)
        if seconds > 0:
            costs = replace(costs, session_cpus=_mean(costs.session_cpus, used / seconds, COST_WEIGHT))
        if free is None or since is None:
            costs = replace(costs, free=None)
        else:
            # A start-up ends soon, and then its session takes what the others do.
            then_free = free + start_used / (now - since) - (costs.session_cpus or 0.0) * len(starting)
            costs = replace(costs, free=_mean(costs.free, max(then_free, 0.0), WEIGHT))
        self.costs = costs

    def _note_start(self, used: float) -> None:
        self.costs = replace(self.costs, start_seconds=_mean(self.costs.start_seconds, used, COST_WEIGHT))


class CpuRoom:
    """Check of the CPU time for a further job, by samples of the running sessions.

    ``running`` returns the pid of each process that runs a job, by the process's id.
    """

    def __init__(self, longest_wait_ms: float | None, running: Callable[[], Mapping[str, int]]) -> None:
        self._longest_wait_ms = longest_wait_ms
        self._running = running
        self._meter = CpuMeter(usable_cpus())
        self._free = FreeCpus()
        self._panel: dict[str, int] = {}

    @property
    def costs(self) -> CpuCosts:
        return self._meter.costs

    def further_sessions(self, jobs: int) -> int | None:
        """Return for how many more sessions there is CPU time; ``None`` if nobody knows, or if the check is off."""
        if self._longest_wait_ms is None:
            return None
        return further_sessions(self.costs, jobs, self._longest_wait_ms)

    def problem(self, stats: PoolStats) -> str | None:
        """Return why there is no CPU time for a further job; ``None`` if there is, or if the check is off."""
        longest = self._longest_wait_ms
        if longest is None or further_sessions(self.costs, stats.jobs, longest) != 0:
            return None
        text = f"sessions wait {self.costs.wait_ms:.2f} ms for a CPU each time that they have work"
        if self.costs.wait_ms <= longest:
            text += f", and would wait longer than {longest:g} ms beside one more"
        return f"{text}; max_cpu_wait_ms is {longest:g}"

    async def run(self) -> None:
        """Sample the sessions again and again. Ends only when it is cancelled."""
        while True:
            self._sample(time.monotonic())
            await asyncio.sleep(INTERVAL)

    def _sample(self, now: float) -> None:
        running = self._running()
        kept = {each: pid for each, pid in self._panel.items() if each in running}
        for each, pid in running.items():
            if len(kept) >= PANEL:
                break
            kept.setdefault(each, pid)
        self._panel = kept
        self._meter.note(now, dict(_samples(kept.items())), len(running), self._free.look(now))


def _samples(sessions: Iterable[tuple[str, int]]) -> Iterable[tuple[str, CpuSample]]:
    for session, pid in sessions:
        with suppress(OSError):  # the process is gone, or no fds are left
            yield session, CpuSample(proc.cpu_seconds(pid), proc.schedule(pid)[1], proc.wake_ups(pid))


def _mean(before: float | None, latest: float, weight: float) -> float:
    return latest if before is None else before + weight * (latest - before)
