"""``/metrics``, for Prometheus."""

from __future__ import annotations

from aiohttp import web

from ..metrics import CONTENT_TYPE, Metrics
from .operations import Operation

__all__ = ["MetricsApi"]


class MetricsApi:
    """The handler."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def operations(self) -> list[Operation]:
        text = {200: "text/plain"}
        return [Operation("GET", "/metrics", self.show_metrics, "Metrics for Prometheus", text, tags=("health",))]

    async def show_metrics(self, request: web.Request) -> web.Response:
        """In Prometheus' text format."""
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})
