"""Watches of one process: one checks that its event loop runs, one checks that its memory stays within bounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from ...log_fields import log_fields
from ...options import PoolOptions
from ...system import proc
from ...system.heartbeat import Beats
from ..core.memory import LONGEST, SHORTEST, MemoryPolicy, MemoryVerdict
from ..core.records import Process
from ..core.stalls import Sample, Stall, classify
from .clock import AwakeClock, Timer
from .page_tables import PageTables

__all__ = ["MemoryWatch", "StallWatch", "Watched", "sample_of"]

_logger = logging.getLogger("greenroom")

AT_REST = 5.0
"""Seconds between two readings of the memory of a process that is idle."""
CHECKS_PER_TIMEOUT = 8
"""Number of checks for a stall within the stall timeout."""


class Watched(Protocol):
    """Process, as far as a watch needs it."""

    id: str
    is_idle: bool
    inherited_mb: float
    """Memory (MiB) that the process has from its zygote."""
    record: Process
    """Record of the core, with the names for log lines."""

    @property
    def live_pid(self) -> int: ...
    def beats(self) -> Beats: ...


def sample_of(pid: int, now: float, beats: Beats) -> Sample:
    """Return a sample of a process at this moment."""
    try:
        cpu, waited = proc.schedule(pid)
        state = proc.stat(pid).state
    except OSError:
        # The process is gone, and its pidfd reports that. Or the kernel lacks these files: then none looks starved.
        cpu, waited, state = 0.0, 0.0, "?"
    return Sample(now, beats.loop, beats.thread, state, cpu, waited)


class StallWatch:
    """Watch of the heartbeats of a process, which reports each new kind of stall once."""

    def __init__(
        self,
        process: Watched,
        timeout: float,
        clock: AwakeClock,
        on_stall: Callable[[Stall, float], object],
    ) -> None:
        self._process = process
        self._timeout = timeout
        self._clock = clock
        self._on_stall = on_stall
        self._beat = process.beats().loop
        self._beat_at = clock.now()
        self._last_beat: Sample | None = None
        """First sample without a new beat. It stands for the latest beat, at most two checks before."""
        self._before: Sample | None = None
        self._reported: Stall | None = None
        self._timer = self._next()

    def stop(self) -> None:
        self._timer.cancel()

    def _next(self) -> Timer:
        return self._clock.call_roughly(self._timeout / CHECKS_PER_TIMEOUT, self._check)

    def _check(self) -> None:
        beat = self._process.beats().loop
        if beat != self._beat:
            # The usual case reads shared memory only. There may be a thousand sessions.
            self._beat, self._beat_at = beat, self._clock.now()
            self._last_beat = self._before = self._reported = None
        else:
            self._judge(self._sample())
        self._timer = self._next()

    def _judge(self, now: Sample) -> None:
        if self._last_beat is None or self._before is None:
            self._before = now
            self._last_beat = now._replace(at=self._beat_at, loop_beat=self._beat)
        stall = classify(self._last_beat, self._before, now, self._timeout)
        if now.at - self._before.at > self._timeout / 2:
            self._before = now
        if stall is None or stall is self._reported:
            return
        self._reported = stall
        self._on_stall(stall, now.at - self._last_beat.at)

    def _sample(self) -> Sample:
        return sample_of(self._process.live_pid, self._clock.now(), self._process.beats())


class MemoryWatch:
    """Watch of the memory of a process. The nearer the memory is to its limit, the more often it is read."""

    def __init__(
        self,
        process: Watched,
        options: PoolOptions,
        clock: AwakeClock,
        page_tables: PageTables,
        on_overweight: Callable[[float], object],
    ) -> None:
        self._process = process
        self._page_tables = page_tables
        self._on_overweight = on_overweight
        self._policy = MemoryPolicy(options.memory_warn_mb, options.memory_limit_mb, process.inherited_mb)
        self._clock = clock
        self._is_stopped = False
        self._timer = clock.call_later(0.0, self._check)

    def stop(self) -> None:
        """Stop looking."""
        self._is_stopped = True
        self._timer.cancel()

    def hurry(self) -> None:
        """Look soon: the process is not idle any more, and its memory may grow fast."""
        self._timer.cancel()
        self._timer = self._clock.call_later(SHORTEST, self._check)

    def _check(self) -> None:
        pid = self._process.live_pid
        try:
            rss = proc.rss_mb(pid)
            verdict = MemoryVerdict.FINE if self._policy.is_far(rss) else self._judge_cheap(pid, rss)
        except OSError as error:
            if proc.is_out_of_fds(error):
                self._look_later(0.0)
            return  # otherwise the process is gone, and its pidfd reports that
        if verdict is MemoryVerdict.CONFIRM:
            self._confirm(rss, self._page_tables.run(_pss_and_faults, pid))
        elif verdict is MemoryVerdict.RECHECK and self._page_tables.has_spare_time():
            self._confirm(rss, self._page_tables.run_in_spare_time(_pss_and_faults, pid))
        else:
            self._look_later(rss)

    def _judge_cheap(self, pid: int, rss: float) -> MemoryVerdict:
        return self._policy.judge_cheap(rss, proc.faulted_mb(pid))

    def _confirm(self, rss: float, reading: asyncio.Future[tuple[float, float]]) -> None:
        """Judge the PSS when the thread has read it: to walk the page tables of a large process takes milliseconds."""
        reading.add_done_callback(partial(self._confirmed, rss))

    def _confirmed(self, rss: float, reading: asyncio.Future[tuple[float, float]]) -> None:
        if reading.cancelled():
            return
        reading.exception()  # asyncio logs an error that nobody has asked for
        if self._is_stopped:
            return
        try:
            verdict = self._judge(rss, reading)
        except (OSError, RuntimeError):
            # No thread or no fds are left; or the process is gone, and its pidfd reports that.
            self._look_later(rss)
            return
        self._act(verdict, self._policy.used_mb)
        if verdict is not MemoryVerdict.KILL:
            self._look_later(rss)

    def _judge(self, rss: float, reading: asyncio.Future[tuple[float, float]]) -> MemoryVerdict:
        pid = self._process.live_pid
        try:
            return self._policy.judge_pss(rss, *reading.result())
        except TimeoutError:
            # Its memory map is locked. What it has not loaded itself may be shared, and so may the pages of files.
            anonymous = proc.anonymous_mb(pid)
            return self._policy.judge_pss(anonymous, anonymous, proc.faulted_mb(pid))
        except PermissionError:
            # It runs as another user. What it has not loaded itself may be shared.
            return self._policy.judge_pss(rss, rss, proc.faulted_mb(pid))

    def _look_later(self, rss: float) -> None:
        delay = AT_REST if self._process.is_idle else self._policy.next_look(rss)
        self._timer.cancel()
        call = self._clock.call_roughly if delay >= LONGEST else self._clock.call_later
        self._timer = call(delay, self._check)

    def _act(self, verdict: MemoryVerdict, used: float) -> None:
        if verdict is MemoryVerdict.WARN:
            extra = log_fields("memory_warning", **self._process.record.ids, memory_mb=round(used, 1))
            _logger.warning("%s uses %.0f MiB", self._process.record.label, used, extra=extra)
        elif verdict is MemoryVerdict.KILL:
            self._on_overweight(used)


def _pss_and_faults(pid: int) -> tuple[float, float]:
    faulted = proc.faulted_mb(pid)  # first: a later fault may not be in the PSS, and then counts for the next look
    return proc.pss_mb(pid), faulted
