"""``/metrics``, for Prometheus."""

from __future__ import annotations

from aiohttp import web

from ..job_metrics import VARIABLE, JobMetrics
from ..metrics import CONTENT_TYPE, Metrics
from .operations import Operation
from .schema import ApiError

__all__ = ["MetricsApi"]


class MetricsApi:
    """The handler."""

    def __init__(self, metrics: Metrics, of_jobs: JobMetrics) -> None:
        self._metrics = metrics
        self._of_jobs = of_jobs

    def operations(self) -> list[Operation]:
        text = {200: "text/plain"}
        tags = ("health",)
        return [
            Operation("GET", "/metrics", self.show_metrics, "Metrics for Prometheus", text, tags=tags),
            Operation("GET", "/metrics/jobs", self.show_jobs, "What jobs count", text, errors=(404,), tags=tags),
        ]

    async def show_metrics(self, request: web.Request) -> web.Response:
        """In Prometheus' text format."""
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def show_jobs(self, request: web.Request) -> web.Response:
        """The metrics that jobs make with prometheus_client, in sum, if the worker has its multiprocess mode on."""
        if not self._of_jobs.is_on:
            message = f"metrics of jobs are off: start the worker with {VARIABLE} set to a folder of its own"
            raise ApiError(404, "not_found", message)
        return web.Response(body=await self._of_jobs.render(), headers={"Content-Type": CONTENT_TYPE})
