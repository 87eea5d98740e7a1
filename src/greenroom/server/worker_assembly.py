"""Assembly of a worker. Each part is made once, and given to the parts that use it."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..integrations.livekit.job_source.source import LiveKitSource
from ..pool import Invocation, ProcessPool
from ..settings.layers import Resolved
from ..settings.worker_options import ServerOptions
from ..sources import Source
from .admission import Admission
from .history.history import History
from .history.job_traces import JobTraces
from .history.store import HistoryStore
from .job_registry import JobRegistry
from .machine.cpu_room import CpuRoom
from .machine.limits import MemoryRoom
from .machine.room import MachineRoom
from .reload import Reloader
from .slices import Slices
from .source_group import SourceGroup
from .stall_guard import StallGuard
from .telemetry.event_log import EventLog
from .telemetry.job_metrics import JobMetrics
from .telemetry.metrics import Metrics
from .telemetry.otel import Exporter, exporter_for
from .telemetry.overview import Overview
from .telemetry.scrapes import Scrapes
from .telemetry.snapshot import Snapshot
from .web import HttpServer
from .web.answer_marks import AnswerMarks
from .web.keys import Keys
from .web.page import PageFiles
from .web.routes.debug import DebugApi
from .web.routes.events import About, EventsApi
from .web.routes.health import HealthApi, MetricsApi
from .web.routes.job_starts import HttpSource
from .web.routes.jobs import JobsApi
from .web.routes.page_codes import PageCodes, PageCodesApi
from .web.routes.pool import PoolApi
from .web.token import Token
from .worker_identity import WorkerIdentity, name_of_host

__all__ = ["Parts", "assemble"]

_PROBE_CONNECTIONS = 32
"""Most connections to ``health_port`` at any one time."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of a worker.

    A job goes from ``sources`` through ``admission`` to ``pool``. ``stalls`` counts how often the worker stood still.
    ``registry`` keeps the job's report, and ``history`` what operators see of it. What is made of many jobs at once is
    made in ``slices``. ``http`` is one of the sources. ``keys`` are the tokens of its clients. All other parts follow
    the pool's events.
    """

    pool: ProcessPool
    registry: JobRegistry
    history: History
    slices: Slices
    stalls: StallGuard
    admission: Admission
    cpu: CpuRoom
    identity: WorkerIdentity
    http: HttpSource
    sources: SourceGroup
    snapshot: Snapshot
    metrics: Metrics
    scrapes: Scrapes
    job_metrics: JobMetrics
    events: EventsApi
    event_log: EventLog
    spans: Exporter | None
    traces: JobTraces
    keys: Keys
    page_codes: PageCodes

    def server(
        self,
        sock: socket.socket,
        options: ServerOptions,
        connections: int,
        reloader: Reloader,
        drain: Callable[[float | None], float],
    ) -> HttpServer:
        """Return the server of the whole HTTP API on this socket."""
        operations = [
            *self.http.operations(),
            *JobsApi(self.registry, self.history, self.identity, self.slices).operations(),
            *PoolApi(self.pool, reloader, drain).operations(),
            *self.events.operations(),
            *self._health().operations(),
            *MetricsApi(self.metrics, self.scrapes, self.job_metrics).operations(),
            *DebugApi(self.pool).operations(),
            *PageFiles().operations(),
            *PageCodesApi(self.keys, self.page_codes).operations(),
        ]
        return HttpServer(operations, sock, options, connections, self.keys, self._marks(), self.stalls)

    def probe_server(self, sock: socket.socket, options: ServerOptions) -> HttpServer:
        """Return the server of the probes on a socket of its own. Clients need no token."""
        return HttpServer(self._health().probes(), sock, options, _PROBE_CONNECTIONS, None, self._marks(), self.stalls)

    def _marks(self) -> AnswerMarks:
        return AnswerMarks(self.identity.name, lambda: self.admission.is_draining)

    def _health(self) -> HealthApi:
        return HealthApi(self.pool, self.admission, self.snapshot, self.sources.status)

    def end_streams(self) -> None:
        """Close the event streams and the event log. No more events come."""
        self.events.close()
        self.event_log.close()


def assemble(
    app: str, resolved: Resolved, invocation: Invocation, *, is_dev: bool, more_sources: Iterable[Source]
) -> Parts:
    """Make all parts of a worker. None of them runs yet.

    Raises ``OptionError`` if the token file cannot be read, or if ``tracing`` is ``on`` and spans cannot be sent.
    """
    settings = resolved.settings
    options = settings.server
    keys = Keys(Token(options), options)
    pool = ProcessPool(
        app,
        invocation=invocation,
        flight_recorder_dir=options.flight_recorder_dir,
        walls_supervisor=settings.pool.walls != "off",
        **dataclasses.asdict(settings.pool),
    )
    pool.leave_to_app(resolved.left_to_app)
    job_metrics = JobMetrics(pool)  # before Metrics: keeps the worker's own figures out of the jobs' folder
    registry = JobRegistry()
    spans = exporter_for(options.tracing)
    traces = JobTraces(None if spans is None else spans.new_trace)
    traces.follow(pool)
    # Before all that show the metadata of rejected jobs, which it notes at the same event.
    history = History(pool, registry.live, options.shown_metadata, _store(options), traces)
    snapshot = Snapshot(pool, history.metadata_of)
    cpu = CpuRoom(options.max_cpu_wait_ms, snapshot.running)
    machine = MachineRoom(MemoryRoom(options.min_free_memory_mb), cpu)
    slices = Slices()
    overview = Overview(history, registry.live, slices)
    stalls = StallGuard()
    identity = WorkerIdentity(options.worker_name or name_of_host())
    admission = Admission(
        pool,
        registry,
        machine,
        history,
        new_job_id=identity.new_job_id,
        offer_timeout=options.offer_timeout,
        stalls=stalls,
        traces=traces,
    )
    http = HttpSource()
    sources = SourceGroup([http, LiveKitSource(settings.livekit), *more_sources], pool, admission)
    if spans is not None:
        spans.follow(pool, traces)
    return Parts(
        pool=pool,
        registry=registry,
        history=history,
        slices=slices,
        stalls=stalls,
        admission=admission,
        cpu=cpu,
        identity=identity,
        http=http,
        sources=sources,
        snapshot=snapshot,
        metrics=Metrics(pool, snapshot, overview, admission, sources.names),
        scrapes=Scrapes(pool),
        job_metrics=job_metrics,
        events=EventsApi(pool, snapshot, overview, admission, About(app, is_dev)),
        event_log=EventLog(pool, history.logged_metadata),
        spans=spans,
        traces=traces,
        keys=keys,
        page_codes=PageCodes(),
    )


def _store(options: ServerOptions) -> HistoryStore | None:
    """Return the history on disk; ``None`` if no file is named."""
    path = options.history
    if path == "auto":
        # systemd names several folders, if the unit has several, with colons between them.
        folder = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        path = f"{folder}/history.db" if folder else None
    if path is None:
        return None
    days, megabytes = options.history_days, options.history_mb
    return HistoryStore(Path(path), days=days, megabytes=megabytes, wanted=options.shown_metadata)
