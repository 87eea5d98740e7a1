"""Traces of jobs, made of the pool's events. Below the span of a job are spans for offer, claim, start and run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from ...exit_report import ExitReport
from ...job_labels import Labels
from ...pool import ProcessPool
from ...pool.events import (
    ClaimFailed,
    Event,
    JobAccepted,
    JobEnded,
    JobStarted,
    Offered,
    ProcessChanged,
    Released,
    Stalled,
    TurnedDown,
)
from ...token_bucket import TokenBucket
from ..history.job_traces import JobTrace, JobTraces
from .span_ids import SpanIds, context_of

__all__ = ["SessionTracer"]

TURNED_DOWN_RATE, TURNED_DOWN_BURST = 50.0, 500.0
"""Traces per second, and burst, of rejected jobs. A flood of rejections must not take time from other jobs."""


@dataclass(slots=True)
class _Session:
    """Facts about a job so far. The spans are made later, when there is something to report."""

    job_id: str
    source: str
    offered_at: float
    trace: JobTrace
    labels: Labels = field(default_factory=dict)
    accepted_at: float | None = None
    claimed_at: float | None = None
    root: Span | None = None
    run: Span | None = None


_REASON_WAIT = 0.2
"""Seconds to wait for the reason after the release of a process. The code that offered the job may still report one."""


class SessionTracer:
    """Tracer of a pool's jobs, until it is closed. The attributes of its spans have the names of the log's fields."""

    def __init__(self, pool: ProcessPool, tracer: Tracer, ids: SpanIds, traces: JobTraces) -> None:
        self._tracer = tracer
        self._ids = ids
        self._traces = traces
        self._sessions: dict[str, _Session] = {}
        self._turned_down = TokenBucket(TURNED_DOWN_RATE, TURNED_DOWN_BURST)
        self._left_out = 0
        self._released: dict[Released, asyncio.TimerHandle] = {}
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            Offered: self._on_offered,
            TurnedDown: self._on_turned_down,
            Released: self._on_released,
            JobAccepted: self._on_accepted,
            ProcessChanged: self._on_change,
            ClaimFailed: self._on_claim_failed,
            JobStarted: self._on_started,
            Stalled: self._on_stalled,
            JobEnded: self._on_job_end,
        }
        self._unsubscribe = pool.subscribe(self._on_event)

    def close(self) -> None:
        """End the spans of released jobs now. The pool is closed, so no more events come."""
        self._unsubscribe()
        for event, timer in list(self._released.items()):
            timer.cancel()
            self._end_released(event)

    def _on_event(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    # --- the offer -------------------------------------------------------------------------------

    def _on_offered(self, event: Offered) -> None:
        trace = self._traces.of(event.job_id)
        self._sessions[event.job_id] = _Session(event.job_id, event.source, event.at, trace, event.labels)

    def _on_turned_down(self, event: TurnedDown) -> None:
        session = self._sessions.get(event.job_id)
        if session is None or session.accepted_at is not None:
            return  # never offered; or accepted, and then JobEnded ends its spans
        del self._sessions[event.job_id]
        if not self._turned_down.take():
            self._left_out += 1
            return
        root = self._root(session)
        root.set_attributes({"greenroom.reason": event.reason, "greenroom.detail": event.detail})
        if self._left_out:
            root.set_attribute("greenroom.turned_down_without_trace", self._left_out)
            self._left_out = 0
        status = Status(StatusCode.ERROR, f"rejected ({event.reason}): {event.detail}")
        offer = self._child(session, "offer", session.offered_at)
        offer.set_attribute("greenroom.reason", event.reason)
        for span in (offer, root):
            span.set_status(status)
            span.end(_ns(event.at))

    def _on_released(self, event: Released) -> None:
        # If the app has rejected the job, TurnedDown comes a few turns of the loop later, with a better reason.
        loop = asyncio.get_running_loop()
        self._released[event] = loop.call_later(_REASON_WAIT, self._end_released, event)

    def _end_released(self, event: Released) -> None:
        del self._released[event]
        session = self._sessions.get(event.job_id)
        if session is None or session.accepted_at is not None or session.offered_at > event.at:
            return
        del self._sessions[event.job_id]
        root = self._root(session)
        root.set_attributes({"greenroom.reason": "released", "greenroom.detail": event.detail})
        for span in (self._child(session, "offer", session.offered_at), root):
            if event.expired:
                span.set_status(Status(StatusCode.ERROR, event.detail))
            span.end(_ns(event.at))

    # --- the start -------------------------------------------------------------------------------

    def _on_accepted(self, event: JobAccepted) -> None:
        # A job that other code than a source launches has had no offer.
        session = self._sessions.get(event.job_id)
        if session is None:
            trace = self._traces.of(event.job_id)
            session = self._sessions[event.job_id] = _Session(event.job_id, event.source, event.at, trace, event.labels)
        session.accepted_at = event.at
        self._root(session).set_attribute("greenroom.launch_type", event.launch_type)
        self._child(session, "offer", session.offered_at).end(_ns(event.at))

    def _on_change(self, event: ProcessChanged) -> None:
        session = self._sessions.get(event.job_id or "")
        if session is not None and event.after == "claimed":
            session.claimed_at = event.at

    def _on_claim_failed(self, event: ClaimFailed) -> None:
        session = self._sessions.get(event.job_id)
        if session is not None and session.root is not None:
            facts = {"greenroom.process_id": event.process_id, "greenroom.cause": event.cause}
            session.root.add_event("claim_failed", facts | {"greenroom.retried": event.retried}, _ns(event.at))

    def _on_started(self, event: JobStarted) -> None:
        session = self._sessions.get(event.job_id)
        if session is None or session.accepted_at is None:
            return
        claimed_at = max(session.claimed_at or session.accepted_at, session.accepted_at)
        self._child(session, "claim", session.accepted_at).end(_ns(claimed_at))
        facts: dict[str, str | int | float] = {
            "greenroom.process_id": event.process_id,
            "greenroom.process_pid": event.pid or 0,
            "greenroom.generation": event.generation,
            "greenroom.start_ms": round(event.start_seconds * 1000, 3),
        }
        start = self._child(session, "start", claimed_at)
        self._ids.next_span = session.trace.run
        session.run = self._child(session, "run", event.at)
        for span in (start, session.run, self._root(session)):
            span.set_attributes(facts)
        start.end(_ns(event.at))

    # --- the end ---------------------------------------------------------------------------------

    def _on_stalled(self, event: Stalled) -> None:
        session = self._sessions.get(event.job_id or "")
        if session is not None and session.run is not None:
            session.run.add_event("stalled", {"greenroom.kind": event.kind}, _ns(event.at))

    def _on_job_end(self, event: JobEnded) -> None:
        session = self._sessions.pop(event.report.job_id or "", None)
        if session is None:
            return
        for span in (session.run, self._root(session)):
            if span is not None:
                _describe(span, event.report)
                span.end(_ns(max(event.report.timings.ended or 0.0, event.at)))

    # --- spans -----------------------------------------------------------------------------------

    def _root(self, session: _Session) -> Span:
        if session.root is None:
            labels = {f"greenroom.labels.{name}": text for name, text in session.labels.items()}
            self._ids.next_trace, self._ids.next_span = session.trace.trace_id, session.trace.root
            session.root = self._tracer.start_span(
                "session",
                context_of(session.trace.caller),
                SpanKind.SERVER,
                {"greenroom.job_id": session.job_id, "greenroom.source": session.source, **labels},
                start_time=_ns(session.offered_at),
            )
        return session.root

    def _child(self, session: _Session, name: str, at: float) -> Span:
        parent = set_span_in_context(self._root(session), Context())
        return self._tracer.start_span(
            name, parent, attributes={"greenroom.job_id": session.job_id}, start_time=_ns(at)
        )


def _describe(span: Span, report: ExitReport) -> None:
    facts = {
        "outcome": report.outcome,
        "reason": report.reason,
        "detail": report.detail,
        "exit_code": report.exit_code,
        "signal": report.signal,
        "peak_memory_mb": report.peak_memory_mb,
        "cpu_seconds": report.cpu_seconds,
    }
    span.set_attributes({f"greenroom.{name}": value for name, value in facts.items() if value is not None})
    if report.outcome in ("failed", "killed"):
        span.set_status(Status(StatusCode.ERROR, f"{report.reason}: {report.detail}"))
    if report.error is not None:
        error = report.error
        span.add_event(
            "exception",
            {
                "exception.type": error.type,
                "exception.message": error.message,
                "exception.stacktrace": error.traceback,
            },
            _ns(report.timings.ended) if report.timings.ended is not None else None,
        )


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
