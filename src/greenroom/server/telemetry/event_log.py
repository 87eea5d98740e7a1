"""Log of a worker's jobs, with one line for each event of the pool.

The pool itself logs some events, also for programs that use it as a library. The log here leaves these out: ends of
processes, stalls, the breaker, the loss of a zygote.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from ...code_place import place_fields, place_in_traceback
from ...log_fields import log_fields
from ...pool import ProcessPool
from ...pool.events import (
    ClaimFailed,
    Event,
    JobAccepted,
    JobEnded,
    JobStarted,
    Released,
    Reloaded,
    ReloadFailed,
    Resized,
    TurnedDown,
    ZygoteLost,
    ZygoteStarted,
)
from ...token_bucket import TokenBucket

__all__ = ["EventLog"]

_logger = logging.getLogger("greenroom")

TURNED_DOWN_RATE, TURNED_DOWN_BURST = 5.0, 20.0
"""Lines per second, and burst, for rejections from one source for one reason. The rest is counted in a summary line."""
SUMMARY_SECONDS = 1.0


class EventLog:
    """Log of a pool's events, until it is closed. ``metadata_of`` returns what the log may show of a job's metadata."""

    def __init__(self, pool: ProcessPool, metadata_of: Callable[[str], Any]) -> None:
        self._metadata_of = metadata_of
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            JobAccepted: _on_accepted,
            JobStarted: self._on_started,
            JobEnded: _on_job_end,
            ClaimFailed: _on_claim_failed,
            Released: _on_released,
            Reloaded: _on_reloaded,
            ReloadFailed: _on_reload_failed,
            Resized: _on_resized,
            TurnedDown: self._on_turned_down,
            ZygoteLost: self._on_zygote_lost,
            ZygoteStarted: self._on_zygote_started,
        }
        self._budgets: dict[tuple[str, str], TokenBucket] = {}
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._summary: asyncio.TimerHandle | None = None
        self._has_lost_zygote = False
        self._unsubscribe = pool.subscribe(self._on_event)

    def close(self) -> None:
        """Log the last summary of rejections, and follow no more events."""
        self._unsubscribe()
        if self._summary is not None:
            self._summary.cancel()
            self._log_left_out()

    def _on_event(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    # --- rejections -------------------------------------------------------------------------------

    def _on_turned_down(self, event: TurnedDown) -> None:
        kind = (event.source, event.reason)
        budget = self._budgets.setdefault(kind, TokenBucket(TURNED_DOWN_RATE, TURNED_DOWN_BURST))
        if not budget.take():
            self._leave_out(kind)
            return
        ids = {"job_id": event.job_id, "labels": event.labels or None, "source": event.source, "reason": event.reason}
        text = "job %s from %s was turned down (%s): %s"
        extra = log_fields("turned_down", **ids, detail=event.detail, metadata=self._metadata_of(event.job_id))
        _logger.warning(text, event.job_id, event.source or "the pool's user", event.reason, event.detail, extra=extra)

    def _leave_out(self, kind: tuple[str, str]) -> None:
        self._left_out[kind] += 1
        if self._summary is None:
            self._summary = asyncio.get_running_loop().call_later(SUMMARY_SECONDS, self._log_left_out)

    def _log_left_out(self) -> None:
        """Log the number of rejections that had no line of their own. So each rejection is counted."""
        self._summary = None
        left_out, self._left_out = self._left_out, Counter()
        for (source, reason), count in left_out.items():
            extra = log_fields("turned_down_summary", source=source, reason=reason, count=count)
            text = "%d more jobs from %s were turned down (%s) without a line of their own"
            _logger.warning(text, count, source or "the pool's user", reason, extra=extra)

    # --- starts ----------------------------------------------------------------------------------

    def _on_started(self, event: JobStarted) -> None:
        start_ms = event.start_seconds * 1000
        extra = log_fields(
            "job_started",
            job_id=event.job_id,
            labels=event.labels or None,
            process_id=event.process_id,
            job_pid=event.pid,
            generation=event.generation,
            source=event.source,
            launch_type=event.launch_type,
            start_ms=round(start_ms, 3),
            queue_ms=round(event.queue_seconds * 1000, 3),
            metadata=self._metadata_of(event.job_id),
        )
        text = "job %s started in process %s (%s, %.1f ms)%s"
        labels = "".join(f", {name} {value}" for name, value in event.labels.items())
        _logger.info(text, event.job_id, event.pid, event.launch_type, start_ms, labels, extra=extra)

    # --- zygotes ---------------------------------------------------------------------------------

    def _on_zygote_lost(self, event: ZygoteLost) -> None:
        self._has_lost_zygote = True

    def _on_zygote_started(self, event: ZygoteStarted) -> None:
        if self._has_lost_zygote:
            extra = log_fields("zygote_replaced", job_pid=event.pid, generation=event.generation)
            text = "zygote %s has replaced the lost zygote (generation %d)"
            _logger.info(text, event.pid, event.generation, extra=extra)
        self._has_lost_zygote = False


def _on_accepted(event: JobAccepted) -> None:
    ids = {"job_id": event.job_id, "labels": event.labels or None}
    extra = log_fields("job_accepted", **ids, source=event.source, launch_type=event.launch_type)
    _logger.debug("job %s from %s was accepted (%s)", event.job_id, event.source, event.launch_type, extra=extra)


def _on_job_end(event: JobEnded) -> None:
    """Log a job that ended before its start. The pool logs all other ends, each with its process."""
    report = event.report
    if report.timings.started is not None:
        return
    ids = {"job_id": report.job_id, "process_id": report.process_id, "job_pid": report.pid}
    why = {"outcome": report.outcome, "reason": report.reason, "source": event.source}
    extra = log_fields("job_not_started", **ids, labels=report.labels or None, generation=report.generation, **why)
    _logger.warning("job %s did not start: %s", report.job_id, report.detail, extra=extra)


def _on_claim_failed(event: ClaimFailed) -> None:
    ids = {"job_id": event.job_id, "process_id": event.process_id, "job_pid": event.pid, "labels": event.labels or None}
    extra = log_fields("claim_failed", **ids, cause=event.cause, retried=event.retried)
    then = "another process gets the job" if event.retried else "the job is given up"
    _logger.warning(
        "job %s lost its process before it had started (%s): %s", event.job_id, event.cause, then, extra=extra
    )


def _on_released(event: Released) -> None:
    ids = {"job_id": event.job_id, "process_id": event.process_id, "job_pid": event.pid, "labels": event.labels or None}
    name = "reservation_expired" if event.expired else "released"
    extra = log_fields(name, **ids, generation=event.generation, source=event.source, detail=event.detail)
    level = logging.WARNING if event.expired else logging.DEBUG
    _logger.log(
        level, "the process that was reserved for job %s was released: %s", event.job_id, event.detail, extra=extra
    )


def _on_reloaded(event: Reloaded) -> None:
    extra = log_fields("reloaded", generation=event.generation, seconds=round(event.seconds, 3))
    _logger.info("reloaded: generation %d serves from now on", event.generation, extra=extra)


def _on_reload_failed(event: ReloadFailed) -> None:
    extra = log_fields("reload_failed", cause=event.cause, **place_fields(place_in_traceback(event.cause)))
    _logger.error("the reload failed, and the old code goes on serving: %s", event.cause, extra=extra)


def _on_resized(event: Resized) -> None:
    most = event.max_idle_processes
    extra = log_fields("resized", num_idle_processes=event.num_idle_processes, max_idle_processes=most)
    text = "resized: %d idle processes to hold, at most %s"
    _logger.info(text, event.num_idle_processes, "any number" if most is None else most, extra=extra)
