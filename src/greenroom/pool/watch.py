"""Looks after one process while it works: is its event loop alive, is its memory within bounds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from ..log_fields import log_fields
from ..options import PoolOptions
from ..system import proc
from ..system.heartbeat import Beats
from .clock import AwakeClock, Timer
from .exits import Decision
from .memory import SHORTEST, MemoryPolicy, MemoryVerdict
from .stalls import FULL_DUMP, SHORT_DUMP, DumpTime, Sample, Stall, classify

__all__ = ["MemoryWatch", "StallWatch", "Watched", "sample_of"]

_logger = logging.getLogger("greenroom")

AT_REST = 5.0
"""Seconds between two readings of the memory of a process that is idle."""
CHECKS_PER_TIMEOUT = 8
"""How often a stall is looked for, within the time in which it must be found."""


class Watched(Protocol):
    """What a watch needs of a process."""

    @property
    def label(self) -> str: ...
    @property
    def live_pid(self) -> int: ...
    @property
    def is_idle(self) -> bool: ...
    @property
    def ids(self) -> dict[str, object]: ...
    def beats(self) -> Beats: ...
    def kill(self, decision: Decision, *, dump: DumpTime | None) -> None: ...


def sample_of(pid: int, now: float, beats: Beats) -> Sample:
    """How a process looks now."""
    try:
        cpu, waited = proc.schedule(pid)
        state = proc.stat(pid).state
    except OSError:
        # Gone, which its pidfd will tell; or a kernel without these files: then nothing looks starved.
        cpu, waited, state = 0.0, 0.0, "?"
    return Sample(now, beats.loop, beats.thread, state, cpu, waited)


class StallWatch:
    """Compares heartbeats; from the job's start until the process ends."""

    def __init__(
        self,
        process: Watched,
        timeout: float,
        clock: AwakeClock,
        on_stall: Callable[[Stall], object],
    ) -> None:
        self._process = process
        self._timeout = timeout
        self._clock = clock
        self._on_stall = on_stall
        self._last_beat = self._before = self._sample()
        self._reported: Stall | None = None
        self._timer = self._next()

    def stop(self) -> None:
        self._timer.cancel()

    def _next(self) -> Timer:
        return self._clock.call_later(self._timeout / CHECKS_PER_TIMEOUT, self._check)

    def _check(self) -> None:
        beats = self._process.beats()
        if beats.loop != self._last_beat.loop_beat:
            # The usual case costs two reads of memory and two of /proc.
            self._last_beat = self._before = self._sample()
            self._reported = None
        else:
            self._judge(self._sample())
        self._timer = self._next()

    def _judge(self, now: Sample) -> None:
        stall = classify(self._last_beat, self._before, now, self._timeout)
        if now.at - self._before.at > self._timeout / 2:
            self._before = now
        if stall is None or stall is self._reported:
            return
        self._reported = stall
        self._on_stall(stall)
        standing = now.at - self._last_beat.at
        if stall is Stall.STARVED:
            return  # it is left alone
        detail = (
            f"its event loop stood still for {standing:.1f} s ({stall.value}); stall_timeout is {self._timeout:g} s"
        )
        self._process.kill(Decision("stalled", detail), dump=FULL_DUMP)

    def _sample(self) -> Sample:
        return sample_of(self._process.live_pid, self._clock.now(), self._process.beats())


class MemoryWatch:
    """Reads memory as often as the limit asks for; from the first breath until the process ends."""

    def __init__(self, process: Watched, options: PoolOptions, clock: AwakeClock) -> None:
        self._process = process
        self._policy = MemoryPolicy(options.memory_warn_mb, options.memory_limit_mb)
        self._limit = options.memory_limit_mb
        self._clock = clock
        self._timer = clock.call_later(0.0, self._check)

    def stop(self) -> None:
        self._timer.cancel()

    def hurry(self) -> None:
        """It is idle no longer: what may come is to be seen in time again."""
        self._timer.cancel()
        self._timer = self._clock.call_later(SHORTEST, self._check)

    def _check(self) -> None:
        pid, now = self._process.live_pid, self._clock.now()
        rss, verdict = 0.0, MemoryVerdict.FINE
        try:
            rss = proc.rss_mb(pid)
            verdict = self._policy.judge_rss(rss, now)
            if verdict is MemoryVerdict.CONFIRM:
                pss = self._pss(pid, rss)
                verdict = self._policy.judge_pss(rss, pss, now)
                self._act(verdict, pss)
        except OSError as error:
            if not proc.is_out_of_fds(error):
                return  # gone; its pidfd will tell
        if verdict is not MemoryVerdict.KILL:
            delay = AT_REST if self._process.is_idle else self._policy.next_look(rss)
            self._timer = self._clock.call_later(delay, self._check)

    def _pss(self, pid: int, rss: float) -> float:
        try:
            return proc.pss_mb(pid)
        except PermissionError:
            return rss  # it runs as another user now: its shared pages count in full then

    def _act(self, verdict: MemoryVerdict, pss: float) -> None:
        if verdict is MemoryVerdict.WARN:
            extra = log_fields("memory_warning", **self._process.ids, memory_mb=round(pss, 1))
            _logger.warning("%s uses %.0f MiB", self._process.label, pss, extra=extra)
        elif verdict is MemoryVerdict.KILL:
            detail = f"it used {pss:.0f} MiB; memory_limit_mb is {self._limit:g}"
            # A short dump: while the stack is written, the memory goes on growing.
            self._process.kill(Decision("memory_limit", detail), dump=SHORT_DUMP)
