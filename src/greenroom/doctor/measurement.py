"""Measurement of an app's own figures: launch latency, refill, a burst, memory by the number of idle processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from ..errors import LaunchError, NoCapacity, PrewarmError
from ..exit_report import ExitReport
from ..options import PoolOptions
from ..pool import Invocation, JobHandle, ProcessPool
from ..system import proc
from .bench_figures import BenchFigures, Burst, MemoryPoint, histogram, spread
from .pacing import Pace
from .warm import pool_of

__all__ = ["Plan", "bench"]

_QUIET = 0.03
"""Seconds of rest before a measured launch, so that all work of the launch before is done."""
_FOR_LAUNCHES = 0.5
"""Largest share of the time for launches. The burst and the memory curve have the rest."""
_FOR_THE_BURST = 0.8
"""Share of the time after which the pool must have refilled from the burst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Plan of a bench: the app, the options and the measurements."""

    app: str
    options: PoolOptions
    left_to_app: Set[str]
    """Names of the options that the app may change."""
    metadata: Any
    seconds: float
    """Time for all measurements together. The load of the app does not count."""
    launches: int
    burst: int
    hold: float
    """Seconds from the burst until the memory of its sessions is read. Then the sessions are cancelled."""
    idle_max: int
    arguments: tuple[str, ...] = ()
    """Arguments of the app's script, after ``start``."""


async def bench(plan: Plan) -> BenchFigures:
    """Measure an app. Raises :class:`AppLoadError`, and :class:`PrewarmError` if processes do not become idle."""
    # The pool begins with no idle process and grows one by one. The ceiling of the options holds until a resize needs
    # more.
    options = replace(plan.options, num_idle_processes=0, max_idle_processes=plan.options.idle_ceiling)
    pool = pool_of(plan.app, options, Invocation(("start", *plan.arguments)))
    pool.leave_to_app(plan.left_to_app - {"num_idle_processes", "max_idle_processes"})
    with Pace(pool) as pace:
        try:
            await pool.start()
            return await _Bench(plan, pool, pace).run()
        finally:
            await pool.aclose(kill=True)


def _idle(plan: Plan) -> int:
    return max(plan.options.num_idle_processes, 1)


@dataclass(slots=True)
class _Bench:
    """One run on one pool. The number of idle processes only grows, since to shrink takes ``idle_ttl``."""

    plan: Plan
    pool: ProcessPool
    pace: Pace
    starts: list[float] = field(default_factory=list)
    refills: list[float] = field(default_factory=list)
    memory: list[MemoryPoint] = field(default_factory=list)
    complaints: dict[str, None] = field(default_factory=dict)
    cold: int = 0
    begin: float = 0.0

    async def run(self) -> BenchFigures:
        idle = _idle(self.plan)
        self.begin = time.monotonic()
        await self._curve(size for size in _sizes(self.plan.idle_max) if size <= idle)
        if not await self._fill(idle):
            raise PrewarmError(f"a process did not become idle: {_why(self.pool)}")
        await self._launches(idle)
        burst = await self._burst(idle) if self.plan.burst > 0 else None
        await self._curve(size for size in _sizes(self.plan.idle_max) if size > idle)
        return BenchFigures(
            app=self.plan.app,
            seconds=time.monotonic() - self.begin,
            launch=spread(self.starts),
            histogram=histogram(self.starts),
            refill=spread(self.refills),
            cold=self.cold,
            burst=burst,
            memory=tuple(self.memory),
            complaints=tuple(self.complaints),
        )

    def _left(self, share: float = 1.0) -> float:
        """Return the seconds that are left of this share of the time."""
        return self.begin + self.plan.seconds * share - time.monotonic()

    # --- memory ----------------------------------------------------------------------------------

    async def _curve(self, sizes: Iterable[int]) -> None:
        for size in sizes:
            if self._left() <= 0:
                return
            if not await self._fill(size):
                self.complaints[f"only {self.pool.stats().idle} processes became idle: {_why(self.pool)}"] = None
                return
            self._note_memory()

    async def _fill(self, size: int) -> bool:
        while (idle := self.pool.stats().idle) < size:
            if await self.pace.grow(idle + 1) is None:
                return False
        return True

    def _note_memory(self) -> None:
        idle = [one.pid for one in self.pool.processes if one.state == "idle" and one.pid is not None]
        zygote = self.pool.stats().zygote_pid
        try:
            parts = [proc.memory_parts(pid) for pid in idle]
            image = 0.0 if zygote is None else proc.pss_mb(zygote)
        except OSError:
            return  # a process has just died: leave this point out
        total = image + sum(part.pss for part in parts)
        self.memory.append(MemoryPoint(len(idle), median(part.private for part in parts), total))

    # --- launches --------------------------------------------------------------------------------

    async def _launches(self, idle: int) -> None:
        """Launch one session after the other, each on a quiet machine with all idle processes there."""
        for _ in range(self.plan.launches):
            if self._left(_FOR_LAUNCHES) <= 0 or not await self.pace.until_idle(idle, self._left(_FOR_LAUNCHES)):
                return
            await asyncio.sleep(_QUIET)
            await self._launch_one(idle)

    async def _launch_one(self, idle: int) -> None:
        begin = time.monotonic()
        handle = await self._launched()
        if handle is None:
            return
        if handle.launch_type == "warm":
            # The session goes on meanwhile, as a real session would.
            if await self.pace.until_idle(idle, self._left(_FOR_LAUNCHES)):
                self.refills.append(time.monotonic() - begin)
        else:
            self.cold += 1
        for report in await self._ended([handle]):
            if report.launch_type == "warm":
                self.starts.append(_claim_to_start(report))

    async def _burst(self, idle: int) -> Burst | None:
        if self._left(_FOR_THE_BURST) <= 0 or not await self.pace.until_idle(idle, self._left(_FOR_THE_BURST)):
            return None
        await asyncio.sleep(_QUIET)
        had = self.pool.stats().idle
        begin = time.monotonic()
        handles = await asyncio.gather(*(self._launched() for _ in range(self.plan.burst)))
        started = [handle for handle in handles if handle is not None]
        refilled = await self.pace.until_idle(had, self._left(_FOR_THE_BURST))
        refill = time.monotonic() - begin
        await asyncio.sleep(max(min(self.plan.hold - refill, self._left()), 0.0))
        running = _private_of(started)
        await self._ended(started)
        return Burst(
            sessions=self.plan.burst,
            idle=had,
            start=spread([handle.start_seconds for handle in started if handle.start_seconds is not None]),
            refill_seconds=refill if refilled else None,
            failed=self.plan.burst - len(started),
            running_private_mb=running,
        )

    async def _launched(self) -> JobHandle | None:
        try:
            return await self.pool.launch(self.plan.metadata)
        except (NoCapacity, LaunchError) as error:
            self.complaints[f"a launch failed: {error}"] = None
            return None

    async def _ended(self, handles: Sequence[JobHandle]) -> list[ExitReport]:
        """Cancel sessions, and return the reports of those that end in time."""
        for handle in handles:
            handle.cancel("the measurement is complete")
        waits = [asyncio.ensure_future(handle.wait()) for handle in handles]
        with suppress(TimeoutError):
            async with asyncio.timeout(max(self._left(), 0.1)):
                await asyncio.gather(*waits)
        for wait in waits:
            wait.cancel()
        reports = [handle.report for handle in handles if handle.report is not None]
        for report in reports:
            if report.outcome in ("failed", "killed"):
                self.complaints[f"a session ended before it was cancelled: {_end_text(report)}"] = None
        return reports


def _sizes(most: int) -> list[int]:
    """Return 1, 2, 4 … and ``most``."""
    return [*(1 << power for power in range(most.bit_length()) if 1 << power < most), most]


def _claim_to_start(report: ExitReport) -> float:
    times = report.timings
    assert times.claimed is not None
    assert times.started is not None
    return times.started - times.claimed


def _private_of(handles: Iterable[JobHandle]) -> float | None:
    found = []
    for handle in handles:
        if handle.state == "running" and handle.pid is not None:
            with suppress(OSError):  # the process has ended since
                found.append(proc.memory_parts(handle.pid).private)
    return median(found) if found else None


def _end_text(report: ExitReport) -> str:
    error = f" ({report.error})" if report.error else ""
    return f"{report.reason}, {report.detail}{error}"


def _why(pool: ProcessPool) -> str:
    details = [report.detail for report in pool.recent_reports if report.outcome in ("failed", "killed")]
    return pool.stats().breaker_cause or (details[-1] if details else "it took too long")
