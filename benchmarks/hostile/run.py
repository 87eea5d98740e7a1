"""One run: the worker, the honest clients, the attackers and the probe, from start to account."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .attacks import DEFAULT
from .clients import Clients
from .helpers import Helper
from .processes import Sample, Sampler, peak_mb
from .worker import Worker

MAX_JOBS = 200
IDLE = 6
SPARE_FDS = 100
"""Files that may be open after the attack beside those of the start: six or seven for each idle process more."""
SAMPLE_EVERY = 1.0
SETTLE_SECONDS = 90.0
END_SECONDS = 60.0
PROBE_EVERY = 0.05


@dataclass(frozen=True)
class Options:
    minutes: float = 60.0
    attacks: tuple[str, ...] = DEFAULT
    with_token: bool = True
    live: int = 20
    starts_per_second: float = 1.0
    at_once: int = 3
    rate: float = 1.0
    seed: int = 0
    rounds: int = 0

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    @property
    def turn_seconds(self) -> float:
        """So long that each attack has at least one turn, with room for turns that end late."""
        return min(30.0, max(2.0, 0.75 * self.seconds * self.at_once / max(1, len(self.attacks))))


@dataclass
class Seen:
    """All that a run has seen, before anybody judges it."""

    samples: list[Sample] = field(default_factory=list)
    start: Sample | None = None
    end: Sample | None = None
    peak_mb: float = 0.0
    turns: list[tuple[str, float, float]] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    attacks: dict[str, dict[str, int]] = field(default_factory=dict)
    probe: dict[str, Any] = field(default_factory=dict)
    ended_early: str | None = None
    exit_code: int | None = None
    left: list[str] = field(default_factory=list)


class Run:
    """Holds what lives during a run. ``go`` returns when everything has ended."""

    def __init__(self, options: Options, folder: Path, log_copy: Path | None = None) -> None:
        self.options = options
        self.seen = Seen()
        self.worker = Worker(folder, with_token=options.with_token, max_jobs=MAX_JOBS, idle=IDLE, copy=log_copy)
        self.clients = Clients(self.worker)
        self._open_turns: dict[str, float] = {}

    async def go(self) -> None:
        try:
            await self.worker.start()
            async with self.clients:
                await self._attack_and_settle()
            self.seen.peak_mb = self.seen.peak_mb or peak_mb(self.worker.pid)
            self.seen.exit_code = await self.worker.stop()
            if self.seen.exit_code is not None:
                self.seen.left = await self.worker.left()
        finally:
            await self.worker.kill()

    async def _attack_and_settle(self) -> None:
        await self.clients.until_idle(IDLE)
        sampler = Sampler(self.worker.pid)
        self.seen.start = sampler.take()
        end = time.monotonic() + self.options.seconds
        for _ in range(self.options.live):
            self.clients.call("live", self.options.seconds)
        probe, attackers = self._helpers()
        await probe.start()
        await attackers.start()
        listening = asyncio.create_task(self._listen(attackers))
        beside = [asyncio.create_task(each) for each in (self._sample(sampler), self.clients.keep_book_forever())]
        try:
            await self._start_sessions(lambda: time.monotonic() < end or not (listening.done() or self._had_rounds()))
            attackers.finish()
            await attackers.end(END_SECONDS)
            await listening
            await self.clients.settle(SETTLE_SECONDS)
            self.seen.end = await self._calm(sampler)
            self.seen.peak_mb = peak_mb(self.worker.pid)
            probe.finish()
            async for line in probe.lines():
                self.seen.probe = line
        finally:
            for task in (listening, *beside):
                task.cancel()
            await asyncio.gather(listening, *beside, return_exceptions=True)
            await attackers.end(0)
            await probe.end(END_SECONDS if self.seen.probe else 0)

    def _helpers(self) -> tuple[Helper, Helper]:
        address = urlsplit(self.worker.url)
        where = {"host": address.hostname, "port": address.port}
        attack = where | {
            "pid": self.worker.pid, "token": self.worker.token, "attacks": self.options.attacks,
            "turn_seconds": self.options.turn_seconds, "at_once": self.options.at_once,
            "rate": self.options.rate, "seed": self.options.seed,
        }  # fmt: skip
        return (
            Helper("benchmarks.hostile.probe", where | {"every": PROBE_EVERY}),
            Helper("benchmarks.hostile.attackers", attack),
        )

    def _had_rounds(self) -> bool:
        """Tell whether each attack had as many turns as it is to have at least."""
        turns = Counter(name for name, _, _ in self.seen.turns)
        return all(turns[name] >= self.options.rounds for name in self.options.attacks)

    async def _start_sessions(self, is_on: Callable[[], bool]) -> None:
        """Start short sessions until the run is over, or the worker has ended."""
        due = time.monotonic()
        while is_on():
            if self.worker.ended is not None:
                self.seen.ended_early = (
                    f"with exit code {self.worker.ended} under {', '.join(self._open_turns) or 'no attack'}"
                )
                return
            self.clients.call("short", 0.5)
            now = time.monotonic()
            due = max(due + 1 / self.options.starts_per_second, now)
            await asyncio.sleep(due - now)

    async def _listen(self, attackers: Helper) -> None:
        async for line in attackers.lines():
            self._hear(line)

    def _hear(self, line: dict[str, Any]) -> None:
        if "session" in line:
            self.clients.add(line["session"])
        elif "killed" in line:
            self.seen.killed.add(line["killed"])
        elif "broken" in line:
            self.seen.broken.append(f"{line['broken']}: {line['error']}")
        elif "done" in line:
            self.seen.attacks = line["done"]
        elif "begin" in line:
            self._open_turns[line["turn"]] = line["begin"]
        else:
            self.seen.turns.append((line["turn"], self._open_turns.pop(line["turn"]), line["end"]))

    async def _sample(self, sampler: Sampler) -> None:
        while True:
            await asyncio.sleep(SAMPLE_EVERY)
            if sample := sampler.take():
                self.seen.samples.append(sample)

    async def _calm(self, sampler: Sampler) -> Sample | None:
        """Wait until the attackers' connections are closed, at most as long as the worker may take for that."""
        give_up = time.monotonic() + 45
        while (sample := sampler.take()) and self.seen.start and time.monotonic() < give_up:
            if sample.fds <= self.seen.start.fds + SPARE_FDS:
                break
            await asyncio.sleep(0.5)
        return sample
