"""An OTLP/HTTP receiver on loopback, as a collector has one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["Receiver", "attributes", "clean_environment", "receiving"]


class Receiver:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        """All that has come, as it came."""
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.refused = 0
        """Number of requests that were refused."""
        self.status = 200

    async def take(self, request: web.Request) -> web.Response:
        if self.status != 200:
            self.refused += 1
            return web.Response(status=self.status)
        self.bodies.append(await request.read())
        for resource in ExportTraceServiceRequest.FromString(self.bodies[-1]).resource_spans:
            self.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return web.Response(content_type="application/x-protobuf")

    def of(self, job_id: str) -> dict[str, Span]:
        """A session's spans by name; none comes twice.

        A busy machine can stand still, so that the worker rejects a job, which ``RunningWorker`` sends again.
        """
        of_job = [span for span in self.spans if attributes(span).get("greenroom.job_id") == job_id]
        found = [span for span in of_job if not span.status.message.startswith("rejected (stalled)")]
        assert len(found) == len({span.name for span in found})
        return {span.name: span for span in found}


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Receiver, dict[str, str]]]:
    """A receiver, and the environment in which a worker sends to it."""
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/v1/traces", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield receiver, clean_environment() | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    finally:
        await runner.cleanup()


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
