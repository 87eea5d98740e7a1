"""Spans of jobs that were lost with their worker. The next worker sends them, from the history on disk.

The offer and the start of such a job were traced by the worker that was killed. Its spans ``session`` and ``run`` were
not: a span is sent when it has ended. This module imports packages of an extra.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, get_current_span

from ..history.job_traces import JobTrace
from ..history.rows import LOST
from ..history.store import HistoryStore, LostJob
from .span_ids import context_of

__all__ = ["LostTraces"]

AGAIN_AFTER = 30.0
"""Seconds until the next attempt, if the history cannot be read or the collector does not take the spans."""


class LostTraces:
    """Sender of the spans of lost jobs. Each job is struck off the history's list once the collector has its spans."""

    def __init__(self, store: HistoryStore, exporter: SpanExporter, resource: Resource) -> None:
        self._store = store
        self._exporter = exporter
        self._resource = resource

    async def send(self) -> None:
        """Send all spans, and return when none is left. Jobs and their starts do not wait for this."""
        sent: set[int] = set()
        while True:
            lost = await self._store.lost_jobs()
            if lost == []:
                return
            if lost is not None:
                # What was sent and could not be struck off is not sent again.
                spans = [span for job in lost if job.number not in sent for span in spans_of(job, self._resource)]
                if not spans or await self._export(spans):
                    sent.update(job.number for job in lost)
                    if await self._store.forget_lost(job.number for job in lost):
                        continue
            await asyncio.sleep(AGAIN_AFTER)

    async def _export(self, spans: Sequence[ReadableSpan]) -> bool:
        return await _in_thread(lambda: self._exporter.export(spans)) is SpanExportResult.SUCCESS


async def _in_thread(fn: Callable[[], Any]) -> Any:
    """Run a function in a thread that does not keep the worker from ending; return ``None`` if it raises."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any) -> None:
        if not result.done():
            result.set_result(value)

    def run() -> None:
        value = None
        with suppress(Exception):  # the exporter has logged the cause; the spans are sent later
            value = fn()
        with suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(settle, value)

    threading.Thread(target=run, name="greenroom-lost-spans", daemon=True).start()
    return await result


def spans_of(job: LostJob, resource: Resource) -> Iterator[ReadableSpan]:
    """Yield the spans of a lost job that were never sent; none if it was not traced."""
    trace, brief = job.trace, job.brief
    if trace is None or not trace.is_sampled:
        return
    caller = get_current_span(context_of(trace.caller)).get_span_context()
    root = _context(trace, trace.root)
    facts = {
        "greenroom.job_id": brief["id"],
        "greenroom.source": brief["source"],
        "greenroom.launch_type": brief["launch_type"],
        "greenroom.process_id": brief["process_id"],
        "greenroom.process_pid": brief["pid"],
        "greenroom.generation": brief["generation"],
        "greenroom.outcome": "killed",
        "greenroom.detail": LOST,
        **{f"greenroom.labels.{name}": text for name, text in brief["labels"].items()},
    }
    known = {name: value for name, value in facts.items() if value is not None}
    yield _span("session", root, caller if caller.is_valid else None, known, (job.at, job.ended), resource)
    if brief["started"] is not None:
        yield _span("run", _context(trace, trace.run), root, known, (brief["started"], job.ended), resource)


def _context(trace: JobTrace, span_id: str) -> SpanContext:
    return SpanContext(int(trace.trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(trace.flags))


def _span(
    name: str,
    context: SpanContext,
    parent: SpanContext | None,
    facts: dict[str, Any],
    times: tuple[float, float],
    resource: Resource,
) -> ReadableSpan:
    begin, end = times
    return ReadableSpan(
        name,
        context,
        parent,
        resource,
        facts,
        kind=SpanKind.SERVER if name == "session" else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR, LOST),
        start_time=int(begin * 1e9),
        end_time=int(max(end, begin) * 1e9),
        instrumentation_scope=InstrumentationScope("greenroom"),
    )
