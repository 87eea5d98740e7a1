"""How cost grows with the number of sessions: memory, the supervisor's CPU, launch latency."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks import machine
from benchmarks.figures import IDLE, Effort
from benchmarks.peers import PEERS, Peer, Unavailable
from benchmarks.remote import Failed, Remote
from benchmarks.stats import median, percentile

IMAGE = "livekit"
_MEMORY_SHARE = 0.7  # of what the machine has free: a size that would need more is not tried
_LANES = 8
_HOLD = 3600.0

Mode = Literal["idle", "running"]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """A pool that holds so many processes, and what it costs."""

    sessions: int
    seconds: float
    """Until all were warm, or all ran."""
    memory_mb: float
    """All processes together, each shared page counted once (sum of PSS)."""
    supervisor_mb: float
    supervisor_cpu: float
    """Per cent of one core."""
    total_cpu: float
    """The same, all processes together."""
    launch_p50_ms: float
    launch_p99_ms: float


@dataclass(frozen=True)
class Stopped:
    """The size at which a peer was stopped, and why."""

    sessions: int
    reason: str


def run(effort: Effort, mode: Mode, names: list[str], progress: Progress) -> dict[str, list[Point | Stopped]]:
    """Size by size, the peers one after the other at each, so that all see the machine alike."""
    found: dict[str, list[Point | Stopped]] = {name: [] for name in names}
    for size in effort.sizes:
        for name in names:
            for outcome in _next_size(PEERS[name], size, mode, found[name], effort):
                found[name].append(outcome)
                progress(f"{size} {mode}, {PEERS[name].label}: {_short(outcome)}")
    return found


def _short(outcome: Point | Stopped) -> str:
    if isinstance(outcome, Stopped):
        return outcome.reason
    return (
        f"{outcome.memory_mb:.0f} MB, supervisor {outcome.supervisor_cpu:.1f} %, "
        f"launch {outcome.launch_p50_ms:.1f} ms, reached in {outcome.seconds:.1f} s"
    )


def _next_size(
    peer: Peer, size: int, mode: Mode, before: list[Point | Stopped], effort: Effort
) -> Iterator[Point | Stopped]:
    last = before[-1] if before else None
    if isinstance(last, Stopped):
        return
    reason = _too_much(last, size, effort) if last else None
    if reason:
        yield Stopped(size, reason)
        return
    try:
        with Remote(peer, IMAGE) as driver:
            yield _point(driver, size, mode, effort)
    except (Failed, Unavailable) as error:
        yield Stopped(size, str(error))


def _too_much(last: Point, size: int, effort: Effort) -> str | None:
    growth = size / last.sessions
    seconds = last.seconds * growth
    if seconds > effort.size_seconds:
        return f"would take about {seconds:.0f} s to start (bound: {effort.size_seconds:.0f} s)"
    cpu, cores = last.total_cpu * growth, os.cpu_count() or 1
    if cpu > 100 * cores:
        return f"its waiting processes alone would use about {cpu / 100:.1f} cores of {cores}"
    memory = last.memory_mb * growth * 1e6
    if memory > machine.available_memory() * _MEMORY_SHARE:
        return f"would need about {memory / 2**30:.0f} GiB"
    return None


def _point(driver: Remote, size: int, mode: Mode, effort: Effort) -> Point:
    seconds = _reach(driver, size, mode, effort.size_seconds)
    time.sleep(1.0)
    supervisor_cpu, total_cpu = _cpu_percent(driver.pid, effort.cpu_seconds)
    memory, supervisor = _memory(driver.pid)
    latencies = driver.ask("launches", count=effort.samples // 2, seconds=effort.seconds, within=60.0)["ms"]
    return Point(
        sessions=size,
        seconds=seconds,
        memory_mb=memory / 1e6,
        supervisor_mb=supervisor / 1e6,
        supervisor_cpu=supervisor_cpu,
        total_cpu=total_cpu,
        launch_p50_ms=median(latencies),
        launch_p99_ms=percentile(latencies, 99),
    )


def _reach(driver: Remote, size: int, mode: Mode, within: float) -> float:
    if mode == "idle":
        return float(driver.ask("open", idle=size, most=size, within=within)["seconds"])
    driver.ask("open", idle=IDLE, most=size + IDLE, within=60.0)
    return float(driver.ask("fill", count=size, width=_LANES, hold=_HOLD, within=within)["seconds"])


def _cpu_percent(supervisor: int, seconds: float) -> tuple[float, float]:
    processes = [supervisor, *machine.descendants(supervisor)]
    before = {pid: machine.cpu_seconds(pid) for pid in processes}
    started = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - started
    used = {pid: _cpu_since(pid, spent) for pid, spent in before.items()}
    return 100 * used[supervisor] / elapsed, 100 * sum(used.values()) / elapsed


def _cpu_since(pid: int, before: float) -> float:
    try:
        return machine.cpu_seconds(pid) - before
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _memory(supervisor: int) -> tuple[int, int]:
    own = machine.proportional_memory(supervisor)
    total = own
    for pid in machine.descendants(supervisor):
        try:
            total += machine.proportional_memory(pid)
        except (FileNotFoundError, ProcessLookupError, KeyError):
            continue  # it ended meanwhile
    return total, own
