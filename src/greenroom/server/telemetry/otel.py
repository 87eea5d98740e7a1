"""Export of spans by OpenTelemetry's SDK, which reads its own standard environment variables.

The packages are an extra. The worker imports them only if spans are wanted, and in the supervisor alone. The SDK sends
spans from a thread. No fork copies that thread, because the zygote is a process of its own, started by exec.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from ...errors import OptionError
from ...log_fields import log_fields

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from ...pool import ProcessPool
    from ..history.job_traces import JobTrace, JobTraces
    from ..history.store import HistoryStore
    from .span_ids import SpanIds
    from .traces import SessionTracer

__all__ = ["Exporter", "exporter_for"]

_logger = logging.getLogger("greenroom")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_LAST_SPANS = 5.0
"""Seconds to send the last spans at the end."""


class Exporter:
    """Exporter that sends spans in batches to ``OTEL_EXPORTER_OTLP_ENDPOINT``, from a thread of its own."""

    def __init__(self, provider: TracerProvider, ids: SpanIds) -> None:
        self._provider = provider
        self._ids = ids
        self._tracers: list[SessionTracer] = []
        self._sending_lost: asyncio.Task[None] | None = None

    def new_trace(self, trace_parent: str | None) -> JobTrace:
        """Choose the ids for the trace of a job."""
        from .span_ids import new_trace  # imports packages of an extra, as below

        return new_trace(self._ids, self._provider.sampler, trace_parent)

    def follow(self, pool: ProcessPool, traces: JobTraces) -> None:
        """Send the spans of a pool's jobs until :meth:`close`."""
        from .traces import SessionTracer

        self._tracers.append(SessionTracer(pool, self._provider.get_tracer("greenroom"), self._ids, traces))

    def send_lost(self, store: HistoryStore) -> None:
        """Begin to send the spans of jobs that were lost with their worker, as the history on disk has them."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from .lost_traces import LostTraces

        lost = LostTraces(store, OTLPSpanExporter(), self._provider.resource)
        self._sending_lost = asyncio.get_running_loop().create_task(lost.send(), name="greenroom-lost-spans")

    async def close(self) -> None:
        """Send the last spans. Give up after :data:`_LAST_SPANS` if the collector does not answer."""
        for tracer in self._tracers:
            tracer.close()
        if self._sending_lost is not None:
            self._sending_lost.cancel()
        loop, is_done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            loop.call_soon_threadsafe(is_done.set)

        threading.Thread(target=shut_down, name="greenroom-spans", daemon=True).start()
        try:
            await asyncio.wait_for(is_done.wait(), _LAST_SPANS)
        except TimeoutError:
            extra = log_fields("spans_lost", timeout=_LAST_SPANS)
            _logger.warning("the last spans could not be sent within %g s, and are lost", _LAST_SPANS, extra=extra)


def exporter_for(tracing: Literal["auto", "on", "off"], environ: Mapping[str, str] = os.environ) -> Exporter | None:
    """Return an exporter if spans are wanted, else ``None``.

    Raises :class:`OptionError` if ``tracing`` is ``on`` and spans cannot be sent.
    """
    if tracing == "off" or (tracing == "auto" and not _is_wanted(environ)):
        return None
    try:
        _check_protocol(environ)
        return _exporter()
    except OptionError as error:
        if tracing == "on":
            raise
        # The variables may be meant for the app alone, so the worker serves without spans.
        _logger.warning("%s No spans are sent.", error, extra=log_fields("tracing_off", cause=str(error)))
        return None


def _is_wanted(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    return any(environ.get(name) for name in _ENDPOINTS)


def _check_protocol(environ: Mapping[str, str]) -> None:
    for name in _PROTOCOLS:
        if environ.get(name, "http/protobuf") != "http/protobuf":
            raise OptionError(
                f"{name} is {environ[name]!r}, but Greenroom sends spans only by http/protobuf. Set {name} to it, and "
                f"the endpoint to the collector's port for HTTP, which is mostly 4318; or set tracing to off."
            )


def _exporter() -> Exporter:
    try:
        # imported late: packages of an extra
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from .span_ids import SpanIds
    except ImportError as error:
        raise OptionError(
            f"tracing needs the OpenTelemetry packages, and {error.name} is not installed: "
            f"run pip install 'greenroom[otel]', or set tracing to off."
        ) from None
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "greenroom"}))
    ids = SpanIds()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=ids)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Exporter(provider, ids)
