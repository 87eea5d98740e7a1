"""Operations for orchestrators and load balancers: liveness, readiness, pressure, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ....errors import PoolClosed, RejectionReason
from ....pool import PoolStats, ProcessPool
from ...admission import Admission, not_ready
from ...telemetry.job_metrics import VARIABLE, JobMetrics
from ...telemetry.metrics import CONTENT_TYPE, Metrics
from ...telemetry.scrapes import Scrapes
from ...telemetry.snapshot import RECENT_SECONDS, Snapshot
from ..guard import is_trusted
from ..operations import Operation
from ..requests import json_response
from ..schema import Alive, ApiError, Pressure, Readiness, TurnedDownRecently

__all__ = ["HealthApi", "MetricsApi"]


class HealthApi:
    """Handlers for health checks. ``sources`` returns the status of each source."""

    def __init__(
        self,
        pool: ProcessPool,
        admission: Admission,
        snapshot: Snapshot,
        sources: Callable[[], dict[str, dict[str, Any]]],
    ) -> None:
        self._pool = pool
        self._admission = admission
        self._snapshot = snapshot
        self._sources = sources

    def operations(self) -> list[Operation]:
        tags = ("health",)
        ready = {200: Readiness, 503: Readiness}
        return [
            Operation("GET", "/livez", self.livez, "Liveness", {200: Alive}, is_open=True, tags=tags),
            Operation("GET", "/readyz", self.readyz, "Readiness for a session", ready, is_open=True, tags=tags),
            Operation(
                "GET",
                "/pressure",
                self.pressure,
                "Load and free capacity",
                {200: Pressure},
                errors=(503,),
                tags=tags,
            ),
        ]

    def probes(self) -> list[Operation]:
        """Return the operations of ``health_port``: those that need no token, and ``/`` as LiveKit's worker has it."""
        alive = Operation("GET", "/", self.alive, "Liveness", {200: "text/plain"}, is_open=True, tags=("health",))
        return [alive, *(operation for operation in self.operations() if operation.is_open)]

    async def alive(self, request: web.Request) -> web.Response:
        """Return ``OK``, as LiveKit's own worker does."""
        return web.Response(text="OK")

    async def livez(self, request: web.Request) -> web.Response:
        """Return 200 while this process answers. The worker may still be unable to take a job: see ``/readyz``."""
        return json_response(Alive(True))

    async def readyz(self, request: web.Request) -> web.Response:
        """Return 200 if a job could start now, else 503 with the reason."""
        problem = self._problem()
        if problem is None:
            return json_response(Readiness(True))
        reason, detail = problem
        # The detail may quote any error of the app, so only clients with the token may see it.
        return json_response(Readiness(False, reason, detail if is_trusted(request) else None), status=503)

    async def pressure(self, request: web.Request) -> web.Response:
        """Return slots, warm processes, and recent rejections."""
        stats, problem = self._pool.stats(), self._problem()
        capacity = self._pool.options.max_jobs
        costs, room = self._admission.cpu_costs, self._admission.room()
        recently = self._snapshot.recently_turned_down(time.time())
        shown = Pressure(
            accepting=problem is None,
            reason=None if problem is None else problem[0],
            running=stats.jobs,
            idle=stats.idle,
            warming=stats.warming,
            capacity=capacity,
            free=max(capacity - stats.jobs, 0),
            room=room.jobs,
            room_limit=room.limit,
            idle_target=stats.idle_target,
            warm_deficit=_deficit(stats),
            turned_down=TurnedDownRecently(RECENT_SECONDS, recently.total(), dict(recently)),
            session_mb=stats.session_mb,
            session_cpus=costs.session_cpus,
            start_cpu_seconds=costs.start_seconds,
            cpu_wait_ms=costs.wait_ms,
            sources=self._sources(),
        )
        return json_response(shown)

    def _problem(self) -> tuple[RejectionReason, str] | None:
        try:
            return not_ready(self._admission.problem(), self._pool.stats())
        except PoolClosed as error:
            return "draining", str(error)


def _deficit(stats: PoolStats) -> int:
    return max(stats.idle_target - stats.idle, 0)


class MetricsApi:
    """Handlers for metrics."""

    def __init__(self, metrics: Metrics, scrapes: Scrapes, of_jobs: JobMetrics) -> None:
        self._metrics = metrics
        self._scrapes = scrapes
        self._of_jobs = of_jobs

    def operations(self) -> list[Operation]:
        text = {200: "text/plain"}
        tags = ("health",)
        return [
            Operation("GET", "/metrics", self.show_metrics, "Metrics for Prometheus", text, tags=tags),
            Operation("GET", "/metrics/jobs", self.show_jobs, "Metrics of jobs", text, errors=(404,), tags=tags),
        ]

    async def show_metrics(self, request: web.Request) -> web.Response:
        """Return the worker's metrics in Prometheus' text format."""
        body = await self._metrics.render()
        self._scrapes.note()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def show_jobs(self, request: web.Request) -> web.Response:
        """Return the sum of the metrics that jobs make with prometheus_client, if its multiprocess mode is on."""
        if not self._of_jobs.is_on:
            message = f"metrics of jobs are off: start the worker with {VARIABLE} set to a folder of its own"
            raise ApiError(404, "not_found", message)
        return web.Response(body=await self._of_jobs.render(), headers={"Content-Type": CONTENT_TYPE})
