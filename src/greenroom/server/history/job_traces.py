"""Trace of each job: the ids of its spans, which are known before the first span is made.

So the log, the history and the job itself get the trace context in time. No package of OpenTelemetry is needed here.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ...pool import ProcessPool
from ...pool.events import Event, JobEnded, Offered, Released, TurnedDown

__all__ = ["KEPT", "JobTrace", "JobTraces"]

KEPT = 2000
"""Ended jobs whose traces are kept, for the last log lines about them."""
_TRACE_PARENT = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SAMPLED = 1


class JobTrace(NamedTuple):
    """Ids of a job's trace and of its spans, in hexadecimal digits."""

    trace_id: str
    root: str
    """Id of the span ``session``."""
    run: str
    """Id of the span ``run``, which is the parent of the job's own spans."""
    caller: str | None
    """Trace context of the caller, if there is one."""
    flags: int
    """Trace flags of W3C Trace Context: 1 if the spans are sent."""

    @property
    def is_sampled(self) -> bool:
        return bool(self.flags & _SAMPLED)

    @property
    def trace_parent(self) -> str:
        """Trace context for the job."""
        return f"00-{self.trace_id}-{self.run}-{self.flags:02x}"


class JobTraces:
    """Traces of a pool's jobs. ``make`` begins a trace, and gets the caller's context; ``None`` if tracing is off.

    Without tracing, a job gets the context of its caller.
    """

    def __init__(self, make: Callable[[str | None], JobTrace] | None = None) -> None:
        self._make = make
        self._live: dict[str, JobTrace] = {}
        self._ended: OrderedDict[str, JobTrace] = OrderedDict()
        self._callers: dict[str, str] = {}
        """Contexts of callers, by job, if tracing is off."""

    def follow(self, pool: ProcessPool) -> None:
        """Give the jobs of a pool their contexts, and forget ended jobs. Call it before the start of the pool."""
        pool.trace_parent_of = self.trace_parent_of
        pool.subscribe(self._on_event)

    def begin(self, job_id: str, trace_parent: str | None) -> None:
        """Begin the trace of a job that is offered. An invalid context of the caller is ignored."""
        if self._make is not None:
            self._live[job_id] = self._make(trace_parent)
        elif trace_parent is not None and _TRACE_PARENT.fullmatch(trace_parent):
            self._callers[job_id] = trace_parent

    def of(self, job_id: str) -> JobTrace:
        """Return the trace of a job, which begins now if the job was not offered. Not to be called without tracing."""
        if (found := self.find(job_id)) is not None:
            return found
        self.begin(job_id, None)
        return self._live[job_id]

    def find(self, job_id: str) -> JobTrace | None:
        """Return the trace of a live job, or of one that ended lately; ``None`` if there is none."""
        return self._live.get(job_id) or self._ended.get(job_id)

    def trace_parent_of(self, job_id: str) -> str | None:
        """Return the trace context for a job that starts; ``None`` if it has none."""
        if self._make is None:
            return self._callers.get(job_id)
        if job_id not in self._live:
            self.begin(job_id, None)
        return self._live[job_id].trace_parent

    @contextmanager
    def in_log(self) -> Iterator[None]:
        """Add the trace id to log records about jobs, for the handlers that there are now, until the end of the block.

        Only a filter of a handler sees the records of all loggers.
        """
        handlers = list(logging.getLogger().handlers) if self._make is not None else []
        for handler in handlers:
            handler.addFilter(self._mark)
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(self._mark)

    def _mark(self, record: logging.LogRecord) -> bool:
        """Add the trace id to a record about a job, and pass all records."""
        trace = self.find(getattr(record, "job_id", None) or "")
        if trace is not None:
            record.trace_id = trace.trace_id
        return True

    def end(self, job_id: str) -> None:
        """Forget a job that has ended, except for its last log lines."""
        self._callers.pop(job_id, None)
        trace = self._live.pop(job_id, None)
        if trace is not None:
            self._ended[job_id] = trace
            self._ended.move_to_end(job_id)
            if len(self._ended) > KEPT:
                self._ended.popitem(last=False)

    def _on_event(self, event: Event) -> None:
        match event:
            case Offered(job_id=job_id, traceparent=trace_parent) if job_id not in self._live:
                self.begin(job_id, trace_parent)  # not by Admission, which has begun the trace before this event
            case TurnedDown(job_id=job_id) | Released(job_id=job_id):
                self.end(job_id)
            case JobEnded(report=report):
                self.end(report.job_id or "")
