"""Assembly of a worker. Each part is made once, and given to the parts that use it."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..integrations.livekit.job_source.source import LiveKitSource
from ..pool import Invocation, ProcessPool
from ..settings.layers import Resolved
from ..settings.worker_options import ServerOptions
from ..sources import Source
from .admission import Admission
from .job_registry import JobRegistry
from .machine.limits import MemoryRoom
from .reload import Reloader
from .source_group import SourceGroup
from .telemetry.event_log import EventLog
from .telemetry.job_metrics import JobMetrics
from .telemetry.metrics import Metrics
from .telemetry.otel import Exporter, exporter_for
from .telemetry.snapshot import Snapshot
from .web import HttpServer
from .web.page import PageFiles
from .web.routes.debug import DebugApi
from .web.routes.events import About, EventsApi
from .web.routes.health import HealthApi, MetricsApi
from .web.routes.job_starts import HttpSource
from .web.routes.jobs import JobsApi
from .web.routes.pool import PoolApi
from .web.token import Token

__all__ = ["Parts", "assemble"]

_PROBE_CONNECTIONS = 32
"""Most connections to ``health_port`` at any one time."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of a worker.

    A job goes from ``sources`` through ``admission`` to ``pool``, and ``registry`` keeps its report. ``http`` is one of
    the sources. Clients of the API must send ``token``. All other parts follow the pool's events.
    """

    pool: ProcessPool
    registry: JobRegistry
    admission: Admission
    http: HttpSource
    sources: SourceGroup
    snapshot: Snapshot
    metrics: Metrics
    job_metrics: JobMetrics
    events: EventsApi
    event_log: EventLog
    spans: Exporter | None
    token: Token

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
            *JobsApi(self.registry).operations(),
            *PoolApi(self.pool, reloader, drain).operations(),
            *self.events.operations(),
            *self._health().operations(),
            *MetricsApi(self.metrics, self.job_metrics).operations(),
            *DebugApi(self.pool).operations(),
            *PageFiles().operations(),
        ]
        return HttpServer(operations, sock, options, connections, self.token)

    def probe_server(self, sock: socket.socket, options: ServerOptions) -> HttpServer:
        """Return the server of the probes on a socket of its own. Clients need no token."""
        return HttpServer(self._health().probes(), sock, options, _PROBE_CONNECTIONS, None)

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
    token = Token(options)
    pool = ProcessPool(
        app,
        invocation=invocation,
        flight_recorder_dir=options.flight_recorder_dir,
        **dataclasses.asdict(settings.pool),
    )
    pool.leave_to_app(resolved.left_to_app)
    job_metrics = JobMetrics(pool)  # before Metrics: keeps the worker's own figures out of the jobs' folder
    registry = JobRegistry()
    admission = Admission(pool, registry, MemoryRoom(options.min_free_memory_mb), options.offer_timeout)
    http = HttpSource()
    snapshot = Snapshot(pool)
    spans = exporter_for(options.tracing)
    if spans is not None:
        spans.follow(pool)
    return Parts(
        pool=pool,
        registry=registry,
        admission=admission,
        http=http,
        sources=SourceGroup([http, LiveKitSource(settings.livekit), *more_sources], pool, admission),
        snapshot=snapshot,
        metrics=Metrics(pool, snapshot, admission),
        job_metrics=job_metrics,
        events=EventsApi(pool, snapshot, admission, About(app, is_dev)),
        event_log=EventLog(pool),
        spans=spans,
        token=token,
    )
