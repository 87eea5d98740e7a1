"""Views of all jobs of a history at once, made a few jobs in a turn of the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from ...pool import JobHandle
from ..history.history import History
from ..history.record import Record
from ..history.sampler import BEAT
from ..slices import Slices

__all__ = ["Overview", "Totals"]

T = TypeVar("T")


class Totals(NamedTuple):
    """Figures of all running jobs together, of the worker's event loop, and of the history itself."""

    stuck: int = 0
    cpu_seconds: float = 0.0
    largest_mb: float = 0.0
    oldest_seconds: float = 0.0
    loop_lag: float = 0.0
    """Largest lag of the event loop of a job: of its last beat, or of the one that has not come."""
    worker_lag: float = 0.0
    """Seconds by which the worker's own event loop came late to the last of its regular calls."""
    dropped: int = 0
    """Records that were never written to disk."""
    is_failing: bool = False
    """True while the history cannot be written to disk."""


class Overview:
    """Views of the jobs of ``history``. ``live`` returns the handles of the jobs that have not ended."""

    def __init__(self, history: History, live: Callable[[], Iterable[JobHandle]], slices: Slices) -> None:
        self._history = history
        self._live = live
        self._slices = slices

    async def latest(self, most: int, show: Callable[[dict[str, Any]], T]) -> list[T]:
        """Return all live jobs, and the latest that have ended, in all ``most`` if there are so many; oldest first.

        ``show`` makes of a job's brief what is returned. All is true at the moment of the return: what has happened
        while the list was made is in it.
        """
        history, handles = self._history, {handle.id: handle for handle in self._live()}

        def shown(record: Record) -> T:
            handle = handles.get(record.id)
            if handle is not None:
                history.sampler.look_at(handle)
            return show(record.brief(time.time()))

        def with_count(record: Record) -> tuple[int, T]:
            return record.events, shown(record)

        records = history.latest(most)
        known = dict(zip(records, await self._slices.map(with_count, records), strict=True))
        found = ((record, known.get(record)) for record in history.latest(most))
        return [
            shown(record) if before is None or before[0] != record.events else before[1] for record, before in found
        ]

    async def live_figures(self, show: Callable[[dict[str, Any]], T]) -> dict[str, T]:
        """Return for each running job what changes by itself: memory, CPU time, and how its event loop beats."""

        def figures(handle: JobHandle) -> tuple[str, T] | None:
            record = self._running(handle)
            return None if record is None else (record.id, show(record.figures_now(time.time())))

        found = await self._slices.map(figures, self._live())
        return dict(pair for pair in found if pair is not None)

    async def totals(self) -> Totals:
        """Return the figures of all running jobs together."""
        found = await self._slices.map(self._figures, self._live())
        running = [figures for figures in found if figures is not None]
        history = self._history
        store = history.store
        return Totals(
            stuck=sum(one.stuck for one in running),
            cpu_seconds=sum(one.cpu_seconds for one in running),
            largest_mb=max((one.largest_mb for one in running), default=0.0),
            oldest_seconds=max((one.oldest_seconds for one in running), default=0.0),
            loop_lag=max((one.loop_lag for one in running), default=0.0),
            worker_lag=history.sampler.worker_lag,
            dropped=0 if store is None else store.dropped,
            is_failing=store is not None and store.is_failing,
        )

    def _figures(self, handle: JobHandle) -> Totals | None:
        """Return the figures of one job; ``None`` if it does not run."""
        record, now = self._running(handle), time.time()
        if record is None:
            return None
        latest, age = record.figures.latest, record.beat_age(now)
        return Totals(
            stuck=int(record.is_stuck(now)),
            cpu_seconds=0.0 if latest is None else latest.cpu_seconds,
            largest_mb=0.0 if latest is None else latest.memory_mb or 0.0,
            oldest_seconds=now - (record.started or now),
            loop_lag=max(0.0 if latest is None else latest.lag or 0.0, (age or 0.0) - BEAT),
        )

    def _running(self, handle: JobHandle) -> Record | None:
        self._history.sampler.look_at(handle)
        record = self._history.find(handle.id)
        return record if record is not None and record.state == "running" else None
