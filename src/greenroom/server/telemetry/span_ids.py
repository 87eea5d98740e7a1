"""Ids of traces and spans, chosen before the spans are made. This module imports packages of an extra."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import SpanKind, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..history.job_traces import JobTrace

__all__ = ["SpanIds", "context_of", "new_trace"]


class SpanIds(RandomIdGenerator):
    """Generator of random ids, except for those of the next span, which can be set before. Used on one thread."""

    def __init__(self) -> None:
        self.next_trace = ""
        self.next_span = ""
        """Ids in hexadecimal digits. An empty text stands for a random id."""

    def generate_trace_id(self) -> int:
        chosen, self.next_trace = self.next_trace, ""
        return int(chosen, 16) if chosen else super().generate_trace_id()

    def generate_span_id(self) -> int:
        chosen, self.next_span = self.next_span, ""
        # A span with a parent has the parent's trace, and asks for no id of a trace.
        self.next_trace = ""
        return int(chosen, 16) if chosen else super().generate_span_id()


def context_of(trace_parent: str | None) -> Context:
    """Return the context in a header ``traceparent``; an empty one, which begins a trace, for anything invalid."""
    carrier = {} if trace_parent is None else {"traceparent": trace_parent}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def new_trace(ids: SpanIds, sampler: Sampler, trace_parent: str | None) -> JobTrace:
    """Choose the ids for the trace of a job, in the trace of its caller if there is one."""
    context = context_of(trace_parent)
    caller = get_current_span(context).get_span_context()
    trace_id = caller.trace_id if caller.is_valid else ids.generate_trace_id()
    decision = sampler.should_sample(context, trace_id, "session", SpanKind.SERVER).decision
    return JobTrace(
        trace_id=f"{trace_id:032x}",
        root=f"{ids.generate_span_id():016x}",
        run=f"{ids.generate_span_id():016x}",
        caller=f"00-{trace_id:032x}-{caller.span_id:016x}-{caller.trace_flags:02x}" if caller.is_valid else None,
        flags=TraceFlags.SAMPLED if decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT,
    )
