"""Gate that rejects jobs when the app's ``load_fnc`` leaves no room, by the rule of LiveKit's own worker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ....errors import NoCapacity
from ....log_fields import log_fields
from ....sources import Host
from .livekit_job import LiveKitJob
from .load_meter import LoadMeter
from .load_report import AppLoad
from .worker_news import WorkerNews

__all__ = ["LoadGate"]

_logger = logging.getLogger("greenroom.livekit")

RETRY_AFTER = 2.0
"""Seconds. ``load_fnc`` is called twice a second, and may soon report room again."""


class LoadGate:
    """Comparison of the app's ``load_threshold`` with its load and the jobs to come.

    ``count_reserved`` counts the jobs that passed the gate and are not launched yet.
    """

    def __init__(
        self, host: Host, news: WorkerNews, count_reserved: Callable[[], int], on_change: Callable[[], object]
    ) -> None:
        self.meter = LoadMeter(host.resident, count_reserved, on_change)
        self.news = news
        self._host = host
        self._count_reserved = count_reserved

    def reset(self) -> None:
        """Start anew for the code that serves, at the first load of the app and after each reload."""
        self.meter.reset()
        if self.meter.is_wanted:
            threshold = self._threshold()
            limit = "no load_threshold" if threshold is None else f"load_threshold is {threshold:g}"
            extra = log_fields("load_fnc_found", threshold=threshold)
            _logger.info("the worker takes its load from the app's load_fnc; %s", limit, extra=extra)

    def load(self) -> AppLoad | None:
        """Return the app's load; ``None`` without a ``load_fnc``, or if it gives none."""
        value = self.meter.value
        if value is None:
            return None
        idle = self._host.options.num_idle_processes
        return AppLoad(value, self._threshold(), self.news.active, self._count_reserved(), idle)

    async def check(self, session: LiveKitJob) -> None:
        """Count an offered job as reserved. Raises :class:`NoCapacity` if the app's load leaves no room for the job."""
        await self.meter.refresh()
        load = self.load()
        if load is not None and load.is_full:
            message = f"load_fnc returned {load.value:g}, or {load.effective:g} with {load.reserved} reserved jobs"
            message = f"{message}; load_threshold is {load.threshold:g}"
            self._host.report_offer(session.id, session.labels)
            self._host.report_rejection(session.id, "load", message, session.labels)
            raise NoCapacity(message, reason="load", retry_after=RETRY_AFTER)
        session.is_reserved = True

    def status(self) -> dict[str, Any] | None:
        """Return load, threshold and problem for an operator; ``None`` without a ``load_fnc``."""
        if not self.meter.is_wanted:
            return None
        return {"load": self.meter.value, "threshold": self._threshold(), "problem": self.meter.problem}

    def _threshold(self) -> float | None:
        threshold = (self._host.manifest.get("livekit") or {}).get("load_threshold")
        return float(threshold) if isinstance(threshold, (int, float)) else None
