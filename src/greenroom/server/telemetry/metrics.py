"""Metrics for Prometheus. The pool's events feed the counts, and levels are read at the scrape.

Only the supervisor has a registry. Processes of jobs are never asked.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ...errors import PoolClosed
from ...pool import ProcessPool
from ...pool.events import (
    ClaimFailed,
    Event,
    JobEnded,
    JobStarted,
    ProcessEnded,
    ProcessWarmed,
    Reloaded,
    ReloadFailed,
    Stalled,
    TurnedDown,
    ZygoteLost,
)
from ..admission import Admission, not_ready
from .snapshot import Snapshot

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST

_STATES = (
    "requested",
    "forked",
    "warming",
    "idle",
    "reserved",
    "claimed",
    "running",
    "draining",
    "resident",
    "killing",
    "exited",
)
_START_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_WARM_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SESSION_BUCKETS = (0.1, 1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200)


class Metrics:
    """Metrics of a worker in a registry of their own, so that several workers can live in one process."""

    def __init__(self, pool: ProcessPool, snapshot: Snapshot, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        self._declare()
        self.registry.register(_Levels(pool, snapshot, admission))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            ProcessWarmed: self._on_warmed,
            JobStarted: self._on_started,
            ClaimFailed: self._on_claim_failed,
            JobEnded: self._on_job_end,
            ProcessEnded: self._on_process_end,
            TurnedDown: lambda event: self._turned_down.labels(event.source, event.reason).inc(),
            Stalled: lambda event: self._stalls.labels(event.kind).inc(),
            Reloaded: lambda _: self._reloads.labels("succeeded").inc(),
            ReloadFailed: lambda _: self._reloads.labels("failed").inc(),
            ZygoteLost: lambda _: self._zygote_restarts.inc(),
        }
        pool.subscribe(self._on_event)

    def render(self) -> bytes:
        """Return the present figures in Prometheus' text format."""
        return generate_latest(self.registry)

    def _declare(self) -> None:
        registry = self.registry
        launch_type = ("launch_type",)
        self._claim_seconds = Histogram(
            "greenroom_claim_seconds",
            "Time from the launch of a job until its process has acknowledged the job.",
            launch_type,
            registry=registry,
            buckets=_START_BUCKETS,
        )
        self._queue_wait = Histogram(
            "greenroom_queue_wait_seconds",
            "Time that a job waited for a process, as a part of greenroom_claim_seconds.",
            launch_type,
            registry=registry,
            buckets=_START_BUCKETS,
        )
        self._claims = Counter(
            "greenroom_claims",
            "Claims of processes for jobs, by result: started, retried (on another process), failed.",
            ("launch_type", "result"),
            registry=registry,
        )
        self._turned_down = Counter(
            "greenroom_turned_down", "Rejected sessions.", ("source", "reason"), registry=registry
        )
        self._fork_seconds = Histogram(
            "greenroom_fork_seconds",
            "Time from the request for a process until the process exists.",
            registry=registry,
            buckets=_WARM_BUCKETS,
        )
        self._prewarm_seconds = Histogram(
            "greenroom_prewarm_seconds", "Time of the app's prewarm.", registry=registry, buckets=_WARM_BUCKETS
        )
        self._session_seconds = Histogram(
            "greenroom_session_seconds",
            "Time from the acknowledgement of a job to its end.",
            ("source",),
            registry=registry,
            buckets=_SESSION_BUCKETS,
        )
        self._exits = Counter(
            "greenroom_exits", "Processes that ended.", ("outcome", "reason", "had_job"), registry=registry
        )
        self._stalls = Counter(
            "greenroom_stalls", "Stalls of event loops of jobs, by class.", ("class",), registry=registry
        )
        self._reloads = Counter("greenroom_reloads", "Reloads, by result.", ("result",), registry=registry)
        self._zygote_restarts = Counter("greenroom_zygote_restarts", "Zygotes lost and replaced.", registry=registry)
        self._logs_dropped = Counter(
            "greenroom_log_records_dropped",
            "Dropped or cut log records and output lines of ended processes.",
            registry=registry,
        )

    # --- events ----------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _on_warmed(self, event: ProcessWarmed) -> None:
        self._fork_seconds.observe(event.fork_seconds)
        self._prewarm_seconds.observe(event.prewarm_seconds)

    def _on_started(self, event: JobStarted) -> None:
        self._claim_seconds.labels(event.launch_type).observe(event.start_seconds)
        self._queue_wait.labels(event.launch_type).observe(event.queue_seconds)
        self._claims.labels(event.launch_type, "started").inc()

    def _on_claim_failed(self, event: ClaimFailed) -> None:
        self._claims.labels(event.launch_type, "retried" if event.retried else "failed").inc()

    def _on_job_end(self, event: JobEnded) -> None:
        times = event.report.timings
        if times.started is not None and times.ended is not None:
            self._session_seconds.labels(event.source).observe(times.ended - times.started)

    def _on_process_end(self, event: ProcessEnded) -> None:
        report = event.report
        self._exits.labels(report.outcome, report.reason, "true" if report.job_id is not None else "false").inc()
        self._logs_dropped.inc(report.log_records_dropped)


class _Levels:
    """Collector of gauges, which reads them at the moment of the scrape."""

    def __init__(self, pool: ProcessPool, snapshot: Snapshot, admission: Admission) -> None:
        self._pool = pool
        self._snapshot = snapshot
        self._admission = admission

    def describe(self) -> Iterable[Metric]:
        """Return nothing. prometheus_client calls this at the registration, when there is no pool to read from."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield self._by_state("greenroom_processes", "Processes by state.", self._snapshot.states())
        private, bytes_help = Tally[str](), "Private memory of processes by state, at the latest sample."
        for process in self._snapshot.processes.values():
            private[process["state"]] += int((process["private_mb"] or 0.0) * 2**20)
        yield self._by_state("greenroom_private_memory_bytes", bytes_help, private)
        try:
            yield from self._of_the_pool()
        except PoolClosed:
            yield GaugeMetricFamily("greenroom_ready", "1 if a session could start now, else 0.", 0)

    def _of_the_pool(self) -> Iterator[Metric]:
        stats = self._pool.stats()
        problem = not_ready(self._admission.problem(), stats)
        levels: list[tuple[str, str, float]] = [
            ("greenroom_ready", "1 if a session could start now, else 0.", problem is None),
            ("greenroom_jobs", "Accepted jobs that have not ended.", stats.jobs),
            ("greenroom_max_jobs", "Most jobs that may be live at any one time.", self._pool.options.max_jobs),
            ("greenroom_waiting", "Jobs that wait for a process.", stats.waiting),
            ("greenroom_idle_target", "Number of idle processes to hold.", stats.idle_target),
            (
                "greenroom_warm_deficit",
                "Number of idle processes below greenroom_idle_target.",
                max(stats.idle_target - stats.idle, 0),
            ),
            (
                "greenroom_session_memory_bytes",
                "Private memory of a session, by the samples so far.",
                (stats.session_mb or 0.0) * 2**20,
            ),
        ]
        for name, text, value in levels:
            yield GaugeMetricFamily(name, text, value)

    def _by_state(self, name: str, text: str, tally: Tally[str]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["state"])
        for state in _STATES:
            family.add_metric([state], tally[state])
        return family
