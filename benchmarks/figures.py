"""The figures: what is asked of a driver for each, and what Greenroom aims at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from benchmarks import machine
from benchmarks.peers import PEERS
from benchmarks.remote import Remote
from benchmarks.stats import median

IDLE = 4
BURST = 20
_START_WITHIN = 120.0


@dataclass(frozen=True)
class Effort:
    """How much measuring a run can afford."""

    name: str
    rounds: int
    samples: int
    seconds: float
    """Of one measurement in one round, for peers that take long."""
    sizes: tuple[int, ...]
    scaled: tuple[str, ...]
    """The peers whose cost is followed as the number of sessions grows."""
    size_seconds: float
    """A peer that needs longer to reach a size is stopped there."""
    cpu_seconds: float
    slow_peers: bool


_SCALED = ("greenroom", "livekit-forkserver", "futures-forkserver", "livekit-spawn", "livekit-node")
FULL = Effort("full", 3, 100, 8.0, (10, 100, 1000), _SCALED, 130.0, 6.0, True)
QUICK = Effort("quick", 1, 20, 1.5, (10, 100), _SCALED[:3], 20.0, 1.5, False)


@dataclass(frozen=True)
class Round:
    """One measurement of one peer. The value stands for it; samples are kept where there are many."""

    value: float
    samples: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Figure:
    key: str
    title: str
    unit: str
    image: str
    target: str
    measure: Callable[[Remote, Effort], Round]
    better: Literal["lower", "higher"] = "lower"
    peers: tuple[str, ...] = tuple(name for name in PEERS if name != "floor")
    steady: bool = False
    """Does not vary with what else the machine does: one round is enough."""
    tail: bool = False
    """The 99th percentile is shown too."""


def _warm_launch(driver: Remote, effort: Effort) -> Round:
    driver.ask("open", idle=IDLE, most=IDLE, within=_START_WITHIN)
    answer = driver.ask("quiet_launches", count=effort.samples, seconds=effort.seconds, within=60.0)
    return Round(median(answer["ms"]), answer["ms"])


def _cold_start(driver: Remote, effort: Effort) -> Round:
    count = max(5, effort.samples // 4)
    answer = driver.ask("cold", count=count, seconds=effort.seconds, within=_START_WITHIN)
    return Round(median(answer["ms"]), answer["ms"])


def _burst(driver: Remote, effort: Effort) -> Round:
    driver.ask("open", idle=IDLE, most=BURST, within=_START_WITHIN)
    time.sleep(0.5)
    return Round(driver.ask("burst", count=BURST, hold=300.0, within=60.0)["seconds"])


def _private_memory(driver: Remote, effort: Effort) -> Round:
    driver.ask("open", idle=IDLE, most=IDLE, within=_START_WITHIN)
    time.sleep(1.5)  # timers and the last threads of the warm-up
    idle = driver.ask("pids", within=10.0)["idle"]
    sizes = [machine.private_memory(pid) / 1e6 for pid in idle]
    return Round(median(sizes), sizes)


def _jobs(driver: Remote, effort: Effort) -> Round:
    width = driver.peer.width
    driver.ask("open", idle=width, most=width, within=_START_WITHIN)
    answer = driver.ask("jobs", seconds=effort.seconds / 2, width=width, within=_START_WITHIN)
    return Round(answer["per_second"])


_WITH_FLOOR = tuple(PEERS)
_FORKING = ("greenroom", "livekit-forkserver", "futures-forkserver", "pebble", "floor")

FIGURES = (
    Figure(
        "warm_launch",
        "warm launch: `launch()` called → entrypoint entered, quiet",
        "ms",
        "livekit",
        "p50 ≤ 1 ms, p99 ≤ 5 ms",
        _warm_launch,
        tail=True,
    ),
    Figure(
        "start",
        "one process, fork → idle, `livekit.agents` imported",
        "ms",
        "livekit",
        "≤ 25 ms; 2x the floor",
        _cold_start,
        peers=_WITH_FLOOR,
    ),
    Figure(
        "start_models",
        "the same, its models loaded too",
        "ms",
        "livekit_models",
        "2x the floor",
        _cold_start,
        peers=_FORKING,
    ),
    Figure("start_trivial", "the same, empty app", "ms", "trivial", "2x the floor", _cold_start, peers=_FORKING),
    Figure(
        "burst",
        f"burst of {BURST} sessions on {IDLE} idle: until all run",
        "s",
        "livekit",
        "≤ 0.6 s",
        _burst,
    ),
    Figure(
        "memory",
        "private memory of an idle process, `livekit.agents` imported",
        "MB",
        "livekit",
        "≤ 4 MB",
        _private_memory,
        peers=_WITH_FLOOR,
        steady=True,
    ),
    Figure(
        "memory_rtc",
        "the same, LiveKit's native runtime started",
        "MB",
        "livekit_rtc",
        "≤ 6 MB",
        _private_memory,
        peers=_WITH_FLOOR,
        steady=True,
    ),
    Figure(
        "jobs",
        "one-shot jobs per second, empty app",
        "/s",
        "trivial",
        "≥ 200",
        _jobs,
        better="higher",
        peers=_WITH_FLOOR,
    ),
)
