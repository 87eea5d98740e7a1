"""Measurement of a few idle processes in a real pool of the app."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace

from ..exit_report import ExitReport
from ..options import PoolOptions
from ..pool import Invocation, ProcessPool
from ..pool.events import Event, ProcessWarmed, ZygoteStarted
from ..system import proc
from .facts import ImageFacts, WarmFacts, WarmProcess
from .pacing import Pace

__all__ = ["measure_warm", "pool_of", "process_of"]

_NOT_WARM = (
    "prewarm_failed",
    "prewarm_timeout",
    "start_timeout",
    "signaled",
    "exited",
    "oom_killed",
    "memory_limit",
    "process_limit",
)
_MOST_FAILURES = 3


async def measure_warm(app: str, options: PoolOptions, invocation: Invocation, count: int) -> WarmFacts:
    """Make ``count`` processes idle, one after the other, and return the facts. Raises :class:`AppLoadError`."""
    options = replace(options, num_idle_processes=0, max_idle_processes=count)
    pool = pool_of(app, options, invocation)
    started: list[ZygoteStarted] = []
    forks: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, ZygoteStarted) and event.pid is not None:
            started.append(event)
        elif isinstance(event, ProcessWarmed):
            forks.append(event.fork_seconds)

    pool.subscribe(note)
    with Pace(pool) as pace:
        async with pool:
            facts = await _measure(pool, pace, count)
    if not started:
        return facts
    last = started[-1]
    image = ImageFacts(last.anonymous_mb, last.huge_pages_mb, last.huge_pages_seconds, tuple(forks))
    return replace(facts, image=image)


async def _measure(pool: ProcessPool, pace: Pace, count: int) -> WarmFacts:
    fds_before = _open_fds()
    warmings = []
    for size in range(1, count + 1):
        warmed = await pace.grow(size)
        if warmed is None:
            break
        warmings.append(warmed)
    processes = _processes(pool)
    fds = (_open_fds() - fds_before) / len(processes) if processes else 0.0
    zygote = pool.stats().zygote_pid
    return WarmFacts(
        processes=processes,
        idle_seconds=tuple(warmed.refill_seconds for warmed in warmings),
        prewarm_seconds=tuple(warmed.prewarm_seconds for warmed in warmings),
        image_mb=proc.rss_mb(zygote) if zygote is not None else 0.0,
        fds_per_process=fds,
        failures=_failures(pool.recent_reports),
    )


def pool_of(app: str, options: PoolOptions, invocation: Invocation) -> ProcessPool:
    return ProcessPool(app, invocation=invocation, **asdict(options))


def _processes(pool: ProcessPool) -> tuple[WarmProcess, ...]:
    idle = [info.pid for info in pool.processes if info.state == "idle" and info.pid is not None]
    found = []
    for pid in idle:
        with suppress(OSError):  # the process has died since; its report has the cause
            found.append(process_of(pid))
    return tuple(found)


def process_of(pid: int) -> WarmProcess:
    """Return the memory and threads of a process. Raises ``OSError`` if the process has ended."""
    parts = proc.memory_parts(pid)
    return WarmProcess(pid, parts.private, parts.shared, parts.pss, proc.thread_count(pid))


def _failures(reports: Iterable[ExitReport]) -> tuple[str, ...]:
    """Return each cause once, with its traceback or stacks, if there are any."""
    causes = dict.fromkeys(_cause(report) for report in reports if report.reason in _NOT_WARM)
    return tuple(causes)[:_MOST_FAILURES]


def _cause(report: ExitReport) -> str:
    traceback = report.error.traceback.rstrip() if report.error else report.stack_dump
    return f"{report.reason}: {report.detail}" + (f"\n{traceback}" if traceback else "")


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))
