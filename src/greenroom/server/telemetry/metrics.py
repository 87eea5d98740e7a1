"""Metrics for Prometheus. The pool's events feed the counts, and levels are read at the scrape.

Only the supervisor has a registry. Processes of jobs are never asked.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ... import __version__
from ...errors import PoolClosed, RejectionReason
from ...exit_reasons import POSSIBLE_ENDS
from ...pool import ProcessPool
from ...pool.events import (
    STALL_KINDS,
    ClaimFailed,
    Draining,
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
from .generation_ends import GenerationEnds
from .overview import Overview, Totals
from .snapshot import Snapshot

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST

disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge beside each counter and histogram, which would be a quarter of all series

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
    """Metrics of a worker in a registry of their own, so that several workers can live in one process.

    ``sources`` are the names of the worker's sources. Each counter exists from the start on, for each value that its
    labels can have. A counter that appears with the value 1 has not increased, so no alert would see the first event.
    """

    def __init__(
        self, pool: ProcessPool, snapshot: Snapshot, overview: Overview, admission: Admission, sources: Iterable[str]
    ) -> None:
        self.registry = CollectorRegistry()
        self._overview = overview
        self._declare()
        self._sources = frozenset(sources)
        self._begin_at_zero()
        self._levels = _Levels(pool, snapshot, admission, GenerationEnds(pool))
        self.registry.register(self._levels)
        for collector in (ProcessCollector, PlatformCollector):
            collector(registry=self.registry)
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            ProcessWarmed: self._on_warmed,
            JobStarted: self._on_started,
            ClaimFailed: self._on_claim_failed,
            JobEnded: self._on_job_end,
            ProcessEnded: self._on_process_end,
            TurnedDown: lambda event: self._turned_down.labels(self._source(event), event.reason).inc(),
            Stalled: lambda event: self._stalls.labels(event.kind).inc(),
            Reloaded: lambda event: self._on_reload("succeeded", event.at),
            ReloadFailed: lambda event: self._on_reload("failed", event.at),
            Draining: lambda event: self._drain_deadline.set(event.at + event.timeout),
            ZygoteLost: lambda _: self._zygote_restarts.inc(),
        }
        pool.subscribe(self._on_event)

    async def render(self) -> bytes:
        """Return the present figures in Prometheus' text format."""
        self._levels.totals = await self._overview.totals()
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
        self._last_reload_successful = Gauge(
            "greenroom_last_reload_successful",
            "1 if the last reload succeeded, or if there was none; 0 while the old code serves after a failed one.",
            registry=registry,
        )
        self._last_reload_at = Gauge(
            "greenroom_last_reload_timestamp_seconds",
            "Time of the last reload, in seconds since the epoch; 0 if there was none.",
            registry=registry,
        )
        self._drain_deadline = Gauge(
            "greenroom_drain_deadline_timestamp_seconds",
            "Time at which a drain ends the jobs that are left, in seconds since the epoch; 0 without a drain.",
            registry=registry,
        )
        self._zygote_restarts = Counter("greenroom_zygote_restarts", "Zygotes lost and replaced.", registry=registry)
        self._logs_dropped = Counter(
            "greenroom_log_records_dropped",
            "Dropped or cut log records and output lines of ended processes.",
            registry=registry,
        )

    def _begin_at_zero(self) -> None:
        for source in sorted(self._sources):
            self._session_seconds.labels(source)
            for reason in get_args(RejectionReason):
                self._turned_down.labels(source, reason)
        for launch_type in ("warm", "cold"):
            self._claim_seconds.labels(launch_type)
            self._queue_wait.labels(launch_type)
            for result in ("started", "retried", "failed"):
                self._claims.labels(launch_type, result)
        for reason, outcomes in POSSIBLE_ENDS.items():
            for had_job, possible in zip(("true", "false"), outcomes, strict=True):
                for outcome in sorted(possible):
                    self._exits.labels(outcome, reason, had_job)
        for kind in STALL_KINDS:
            self._stalls.labels(kind)
        for result in ("succeeded", "failed"):
            self._reloads.labels(result)
        self._last_reload_successful.set(1)

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
            self._session_seconds.labels(self._source(event)).observe(times.ended - times.started)

    def _source(self, event: TurnedDown | JobEnded) -> str:
        """Return the source of a job; ``other`` if it is none of the worker's, so that the series stay few."""
        return event.source if event.source in self._sources else "other"

    def _on_reload(self, result: str, at: float) -> None:
        self._reloads.labels(result).inc()
        self._last_reload_successful.set(result == "succeeded")
        self._last_reload_at.set(at)

    def _on_process_end(self, event: ProcessEnded) -> None:
        report = event.report
        self._exits.labels(report.outcome, report.reason, "true" if report.job_id is not None else "false").inc()
        self._logs_dropped.inc(report.log_records_dropped)


class _Levels:
    """Collector of gauges, which reads them at the moment of the scrape."""

    def __init__(self, pool: ProcessPool, snapshot: Snapshot, admission: Admission, ends: GenerationEnds) -> None:
        self.totals = Totals()
        """Figures of all running jobs, read before the scrape: to read them takes several turns of the event loop."""
        self._pool = pool
        self._snapshot = snapshot
        self._admission = admission
        self._ends = ends

    def describe(self) -> Iterable[Metric]:
        """Return nothing. prometheus_client calls this at the registration, when there is no pool to read from."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield self._by_state("greenroom_processes", "Processes by state.", self._snapshot.states())
        private, bytes_help = Tally[str](), "Private memory of processes by state, at the latest sample."
        for process in self._snapshot.processes.values():
            private[process["state"]] += int((process["private_mb"] or 0.0) * 2**20)
        yield self._by_state("greenroom_private_memory_bytes", bytes_help, private)
        yield from self._of_jobs()
        available_mb = self._admission.available_mb
        if available_mb is not None:
            text = "Memory that is available, on the machine or below the limit of the cgroup."
            yield GaugeMetricFamily("greenroom_memory_available_bytes", text, available_mb * 2**20)
        yield from self._ends.collect()
        info = GaugeMetricFamily(
            "greenroom_info",
            "1, with the version of Greenroom and that of the app that is served.",
            labels=["version", "app_version"],
        )
        info.add_metric([__version__, self._ends.serving_version], 1)
        yield info
        try:
            yield from self._of_the_pool()
        except PoolClosed:
            closed = self._admission.closed
            yield GaugeMetricFamily("greenroom_ready", "1 if a session could start now, else 0.", 0)
            yield _not_ready("draining" if closed is None else closed.reason)

    def _of_jobs(self) -> Iterator[Metric]:
        totals = self.totals
        levels: list[tuple[str, str, float]] = [
            ("greenroom_jobs_stuck", "Running jobs whose event loop stands still.", totals.stuck),
            ("greenroom_jobs_cpu_seconds", "CPU time of the running jobs so far.", totals.cpu_seconds),
            ("greenroom_job_largest_bytes", "Private memory of the largest running job.", totals.largest_mb * 2**20),
            ("greenroom_job_oldest_seconds", "Time since the start of the oldest running job.", totals.oldest_seconds),
            ("greenroom_job_loop_lag_seconds", "Largest lag of the event loops of running jobs.", totals.loop_lag),
            ("greenroom_history_failing", "1 while the history cannot be written to disk.", totals.is_failing),
            ("greenroom_worker_loop_lag_seconds", "Latest lag of the worker's own event loop.", totals.worker_lag),
        ]
        for name, text, value in levels:
            yield GaugeMetricFamily(name, text, value)
        text = "Records of jobs that were never written to the history on disk."
        yield CounterMetricFamily("greenroom_history_dropped", text, totals.dropped)

    def _of_the_pool(self) -> Iterator[Metric]:
        stats = self._pool.stats()
        problem = not_ready(self._admission.problem(), stats)
        yield _not_ready(None if problem is None else problem[0])
        costs, (room, _) = self._admission.cpu_costs, self._admission.room()
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
            ("greenroom_session_cpus", "CPUs that a session takes on average.", costs.session_cpus or 0.0),
            (
                "greenroom_cpu_wait_seconds",
                "Mean wait of a session for a CPU, each time that it has work.",
                costs.wait_ms / 1000,
            ),
            ("greenroom_breaker_open", "1 while processes do not become warm, else 0.", stats.breaker_open),
            ("greenroom_room", "Jobs that could still start, by the limit that is reached first.", room),
        ]
        for name, text, value in levels:
            yield GaugeMetricFamily(name, text, value)

    def _by_state(self, name: str, text: str, tally: Tally[str]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["state"])
        for state in _STATES:
            family.add_metric([state], tally[state])
        return family


def _not_ready(reason: RejectionReason | None) -> Metric:
    """Return a gauge for each reason: 1 for the one for which no job could start now."""
    family = GaugeMetricFamily("greenroom_not_ready", "1 for the reason why no session could start.", labels=["reason"])
    for each in get_args(RejectionReason):
        family.add_metric([each], each == reason)
    return family
