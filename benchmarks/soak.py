"""The soak: ``python -m benchmarks.soak`` runs 10,000 short jobs while everything is broken at random.

Idle and running processes and the zygote are killed and stopped, jobs are cancelled, the app is
reloaded. At the end it gives an exact account: every accepted job has one report, none ran twice,
every report names the cause that it really had, and nothing is left over. Exit code 0 if all holds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from greenroom import ExitReport, GreenroomError, JobHandle, ProcessPool

APP = """
import asyncio, os
import greenroom

app = greenroom.App()
LEDGER = os.open({ledger!r}, os.O_WRONLY | os.O_APPEND)

@app.entrypoint
async def entrypoint(ctx):
    os.write(LEDGER, ctx.job.id.encode() + b"\\\\n")   # O_APPEND: whole lines, whoever writes
    await asyncio.sleep(ctx.job.metadata["seconds"])
    return ctx.job.id
"""


@dataclass
class Account:
    """What was done, and what came of it."""

    reports: dict[str, list[ExitReport]] = field(default_factory=dict)
    turned_down: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    killed: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    restarts_failed: Counter[str] = field(default_factory=Counter)


class Soak:
    """Load, chaos, and the account of both."""

    def __init__(self, pool: ProcessPool, jobs: int, seed: int) -> None:
        self.pool = pool
        self.jobs = jobs
        self.random = random.Random(seed)
        self.account = Account()
        self.live: dict[str, JobHandle] = {}
        self.zygote_rests_until = 0.0

    async def run(self, concurrency: int) -> None:
        numbers = iter(range(self.jobs))
        chaos = asyncio.create_task(self._chaos())
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._load(numbers))
        chaos.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await chaos

    # --- load --------------------------------------------------------------------------------------

    async def _load(self, numbers: object) -> None:
        for _ in numbers:  # type: ignore[attr-defined]  # shared by all: each number is taken once
            handle = await self._submit()
            self.live[handle.id] = handle
            report = await handle.wait()
            del self.live[handle.id]
            self.account.reports.setdefault(handle.id, []).append(report)

    async def _submit(self) -> JobHandle:
        while True:
            try:
                return self.pool.submit({"seconds": self.random.choice((0, 0, 0.005, 0.02, 0.1))}, timeout=60)
            except GreenroomError as error:
                self.account.turned_down[str(getattr(error, "reason", type(error).__name__))] += 1
                await asyncio.sleep(0.05)

    # --- chaos -------------------------------------------------------------------------------------

    async def _chaos(self) -> None:
        actions = [
            (self._kill_idle, 20), (self._kill_running, 20), (self._stop_idle, 8), (self._stop_running, 8),
            (self._cancel, 30), (self._kill_zygote, 3), (self._stop_zygote, 1), (self._reload, 2),
        ]  # fmt: skip
        while True:
            await asyncio.sleep(self.random.uniform(0.0, 0.1))
            action = self.random.choices([action for action, _ in actions], [weight for _, weight in actions])[0]
            await action()

    async def _kill_idle(self) -> None:
        self._signal("kill idle", self._pids("idle"), signal.SIGKILL)

    async def _kill_running(self) -> None:
        self._signal("kill running", self._pids("running"), signal.SIGKILL)

    async def _stop_idle(self) -> None:
        self._signal("stop idle", self._pids("idle"), signal.SIGSTOP)

    async def _stop_running(self) -> None:
        self._signal("stop running", self._pids("running"), signal.SIGSTOP)

    async def _kill_zygote(self) -> None:
        self._signal_zygote("kill zygote", signal.SIGKILL)

    async def _stop_zygote(self) -> None:
        self._signal_zygote("stop zygote", signal.SIGSTOP)

    async def _cancel(self) -> None:
        handles = [handle for handle in self.live.values() if handle.pid not in self.account.stopped]
        if handles:
            handle = self.random.choice(handles)
            handle.cancel("by the soak")
            self.account.cancelled.add(handle.id)
            self.account.injected["cancel"] += 1

    async def _reload(self) -> None:
        self.account.injected["reload"] += 1
        try:
            await self.pool.reload()
        except GreenroomError as error:
            # The chaos of a moment before has hit the new zygote: the old one goes on.
            self.account.restarts_failed[type(error).__name__] += 1

    def _pids(self, state: str) -> list[int]:
        # What is stopped already is left to be found out, and not ended by another cause.
        pids = [process.pid for process in self.pool.processes if process.state == state and process.pid]
        return [pid for pid in pids if pid not in self.account.stopped]

    def _signal(self, what: str, pids: list[int], signum: signal.Signals) -> None:
        if not pids:
            return
        pid = self.random.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
            self.account.injected[what] += 1
            (self.account.killed if signum == signal.SIGKILL else self.account.stopped).add(pid)

    def _signal_zygote(self, what: str, signum: signal.Signals) -> None:
        # Its loss a few times a minute is chaos enough: more, and the pool rightly slows down.
        pid, now = self.pool.stats().zygote_pid, time.monotonic()
        if pid is not None and now > self.zygote_rests_until:
            self.zygote_rests_until = now + 10.0
            self._signal(what, [pid], signum)


# --- the account -----------------------------------------------------------------------------------


def faults_of(account: Account, ledger: list[str], jobs: int) -> list[str]:
    """What is wrong; empty if every accepted job was served or truthfully reported."""
    faults = []
    if len(account.reports) != jobs:
        faults.append(f"{jobs} jobs were accepted, {len(account.reports)} were reported")
    runs = Counter(ledger)
    for job_id, times in runs.items():
        if times > 1:
            faults.append(f"{job_id} ran {times} times")
    for job_id, reports in account.reports.items():
        if len(reports) != 1:
            faults.append(f"{job_id} has {len(reports)} reports")
        faults += [f"{job_id}: {lie}" for report in reports if (lie := lie_in(report, account, runs[job_id]))]
    return faults


def lie_in(report: ExitReport, account: Account, runs: int) -> str | None:
    """What in a report cannot be true, given what was done."""
    started = report.timings.started is not None
    if runs and not started:
        return f"it ran, but the report has no start: {report.detail}"
    checks = {
        "completed": runs == 1 and report.result == report.job_id,
        "signaled": report.signal == signal.SIGKILL and report.pid in account.killed,
        "stalled": report.pid in account.stopped,
        "start_timeout": report.pid is None or report.pid in account.stopped | account.killed,
        "cancelled": report.job_id in account.cancelled,
        "shutdown_timeout": report.pid in account.stopped,
    }
    if not checks.get(report.reason, False):
        return f"{report.outcome}/{report.reason} was not the cause: {report.detail}"
    return None


@dataclass(frozen=True)
class Census:
    fds: int
    threads: int
    descendants: int
    rss_mb: float

    @classmethod
    def take(cls) -> Census:
        rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        return cls(len(os.listdir("/proc/self/fd")), threading.active_count(), _descendants(), round(rss, 1))


def _descendants() -> int:
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    border = {os.getpid()}
    while border:
        border = {pid for pid, parent in parents.items() if parent in border}
        found |= border
    return len(found)


async def soak(jobs: int, concurrency: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder, "ledger")
        ledger.touch()
        app = Path(folder, "soak_app.py")
        app.write_text(APP.replace("{ledger!r}", repr(str(ledger))).replace("\\\\n", "\\n"))
        before, begin = Census.take(), time.monotonic()
        pool = ProcessPool(
            f"{app}:app", num_idle_processes=6, max_jobs=2 * concurrency, stall_timeout=2.0, shutdown_timeout=3.0,
            cleanup_timeout=2.0, start_timeout=3.0,
        )  # fmt: skip
        async with pool:
            run = Soak(pool, jobs, seed)
            await run.run(concurrency)
            restarts = pool.stats().zygote_restarts
        faults = faults_of(run.account, ledger.read_text().split(), jobs)
        after = Census.take()
    if (after.fds, after.threads, after.descendants) != (before.fds, before.threads, before.descendants):
        faults.append(f"left over: {before} became {after}")
    _print_account(run.account, faults, before, after, seed, time.monotonic() - begin, restarts)
    return 1 if faults else 0


def _print_account(
    account: Account, faults: list[str], before: Census, after: Census, seed: int, seconds: float, restarts: int
) -> None:
    ends = Counter(f"{report.outcome}/{report.reason}" for reports in account.reports.values() for report in reports)
    summary = {
        "seed": seed,
        "seconds": round(seconds, 1),
        "accepted": len(account.reports),
        "reports": sum(map(len, account.reports.values())),
        "ends": dict(ends.most_common()),
        "turned_down": dict(account.turned_down),
        "injected": dict(account.injected.most_common()),
        "reloads_failed": dict(account.restarts_failed),
        "zygote_restarts": restarts,
        "census_before": vars(before),
        "census_after": vars(after),
        "faults": faults[:50],
    }
    print(json.dumps(summary, indent=2))
    print(
        "Every accepted job has one true report, no job ran twice, and nothing is left." if not faults else "FAULTS",
        end="\n",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, help="number of jobs (10,000)")
    parser.add_argument("--concurrency", type=int, default=24, help="number of simultaneous callers (24)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    sys.exit(asyncio.run(soak(arguments.jobs, arguments.concurrency, arguments.seed)))


if __name__ == "__main__":
    main()
