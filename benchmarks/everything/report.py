"""The result of a run as a table, in plain words."""

from __future__ import annotations

import statistics
from collections import Counter

from .effects import EFFECTS
from .judge import CUT_OFF, overlapping
from .run import Run

__all__ = ["table"]


def table(run: Run) -> str:
    """Return the whole table."""
    rows = [*_call_rows(run), ("", ""), *_injection_rows(run), ("", ""), *_worker_rows(run)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


def _call_rows(run: Run) -> list[tuple[str, str]]:
    account = run.account
    plans: dict[str, Counter[str]] = {}
    for (plan, end), count in account.calls.items():
        plans.setdefault(plan, Counter())[end] += count
    rows = [(f"jobs: {plan}", _counted(ends)) for plan, ends in sorted(plans.items())]
    rooms = run.rooms.count if run.rooms else 0
    failed = run.rooms.failed if run.rooms else 0
    judged = account.planned + account.injected_causes.total()
    causes = f"{account.planned} as planned, by injection {_counted(account.injected_causes)}"
    rows += [
        ("rooms", _counted(account.rooms)),
        ("calls", f"{run.http.count} by HTTP, {rooms} rooms; {failed} callers could not join"),
        ("reports, each of the true cause", f"{judged}: {causes}"),
        ("lost with a worker that was killed", str(account.lost)),
    ]
    return rows


def _injection_rows(run: Run) -> list[tuple[str, str]]:
    counts = run.ledger.counts
    rows = [(f"injected: {kind}", str(counts[kind])) for kind in EFFECTS]
    return [*rows, ("injections", f"{counts.total()}; {run.chaos.skipped} acts found no target, or came too soon")]


def _worker_rows(run: Run) -> list[tuple[str, str]]:
    worker, probe, lives = run.worker, run.result.probe, run.worker.lives
    held = max((seconds for _, seconds in worker.hold_ups), default=0.0)
    slow = [
        seconds for at, seconds in probe.get("slow", ())
        if not overlapping(run.ledger.injections, CUT_OFF, at - seconds, at, 1.0)
    ]  # fmt: skip
    loads = run.result.loads
    growth = [life.memory_at_end_mb - life.memory_at_start_mb for life in lives if life.memory_at_start_mb]
    livez = f"median {probe.get('p50')} s, 99 % {probe.get('p99')} s" if probe else "not measured"
    return [
        ("lives of the worker", str(len(lives))),
        ("processes gone after their supervisor", f"{worker.longest_gone:.2f} s at most"),
        ("event loop held up, by its log", f"{len(worker.hold_ups)} times, {held:.1f} s at most"),
        ("/livez while it was not cut off", f"{livez}; longest {f'{max(slow):.2f} s' if slow else 'below 0.5 s'}"),
        ("the supervisor waited for a CPU", f"{worker.longest_wait:.1f} s at most, between two samples"),
        ("load of the machine", f"mean {statistics.fmean(loads or [0]):.1f}, most {max(loads, default=0):.1f}"),
        ("lateness of the probe itself", f"{probe.get('own_late', 0)} s at most"),
        ("supervisor's memory, MiB", f"{max((life.memory_peak_mb for life in lives), default=0):.0f} at most"),
        ("  growth in one life", f"median {statistics.median(growth or [0]):.1f}, most {max(growth, default=0):.1f}"),
        ("its open files", run.result.files or "not counted"),
        ("events", f"their stream was cut {run.account.gaps} times"),
        ("left over", "; ".join(run.result.left) or "nothing" if run.result.files else "not looked for"),
    ]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "0"
