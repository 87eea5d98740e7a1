"""What a worker is made of: each part made once, and handed to those that use it."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..pool import Invocation, ProcessPool
from ..settings.layers import Resolved
from ..settings.server import ServerOptions
from .admission import Admission
from .board import Board
from .event_log import EventLog
from .job_metrics import JobMetrics
from .jobs import JobBook
from .memory import MemoryRoom
from .metrics import Metrics
from .otel import Exporter, exporter_for
from .reload import Reloader
from .sources import HttpSource, LiveKitSource, Source, SourceGroup
from .web import HttpServer
from .web.events import About, EventsApi
from .web.health import HealthApi
from .web.jobs import JobsApi
from .web.metrics import MetricsApi
from .web.page import PageFiles
from .web.pool import PoolApi
from .web.token import Token

__all__ = ["Parts", "assemble"]

_PROBE_CONNECTIONS = 32
"""At any one time, on ``health_port``."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The way of a session: from ``sources`` through ``admission`` into ``pool``; ``book`` keeps its report. All else
    follows the pool's events."""

    pool: ProcessPool
    book: JobBook
    admission: Admission
    http: HttpSource
    sources: SourceGroup
    board: Board
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
        """All that can be asked for by HTTP, on this socket."""
        operations = [
            *self.http.operations(),
            *JobsApi(self.book).operations(),
            *PoolApi(self.pool, reloader, drain).operations(),
            *self.events.operations(),
            *self._health().operations(),
            *MetricsApi(self.metrics, self.job_metrics).operations(),
            *PageFiles().operations(),
        ]
        return HttpServer(operations, sock, options, connections, self.token)

    def probe_server(self, sock: socket.socket, options: ServerOptions) -> HttpServer:
        """What probes ask for, on a socket of its own, whoever they are."""
        return HttpServer(self._health().probes(), sock, options, _PROBE_CONNECTIONS, None)

    def _health(self) -> HealthApi:
        return HealthApi(self.pool, self.admission, self.board, self.sources.status)

    def end_streams(self) -> None:
        """Nothing happens any more that anybody could be told of."""
        self.events.close()
        self.event_log.close()


def assemble(
    app: str, resolved: Resolved, invocation: Invocation, *, is_dev: bool, more_sources: Iterable[Source]
) -> Parts:
    """Nothing of it runs yet. ``OptionError`` if the file with the token cannot be read."""
    settings = resolved.settings
    options = settings.server
    token = Token(options)
    pool = ProcessPool(app, invocation=invocation, **dataclasses.asdict(settings.pool))
    pool.leave_to_app(resolved.left_to_app)
    job_metrics = JobMetrics(pool)  # before the worker has figures of its own
    book = JobBook()
    admission = Admission(pool, book, MemoryRoom(options.min_free_memory_mb), options.offer_timeout)
    http = HttpSource()
    board = Board(pool)
    spans = exporter_for(options.tracing)
    if spans is not None:
        spans.follow(pool)
    return Parts(
        pool=pool,
        book=book,
        admission=admission,
        http=http,
        sources=SourceGroup([http, LiveKitSource(pool, settings.livekit), *more_sources]),
        board=board,
        metrics=Metrics(pool, board, admission),
        job_metrics=job_metrics,
        events=EventsApi(pool, board, admission, About(app, is_dev)),
        event_log=EventLog(pool),
        spans=spans,
        token=token,
    )
