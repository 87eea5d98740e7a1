"""Metrics that jobs make with prometheus_client, gathered from the files of its multiprocess mode.

In that mode, each process writes files of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Metric, values
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ...log_fields import log_fields
from ...pool import ProcessPool
from ...pool.events import Event, ProcessEnded, ZygoteStarted
from . import metric_files
from .metric_files import ENDED_KINDS, KINDS, Figures, SpoiltFile

__all__ = ["VARIABLE", "JobMetrics"]

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
MOST_SERIES = 10_000
"""Series of ended jobs that are kept for each kind of file. Without a bound, a label with another text for each job
would grow for ever."""
CLOSE_TIMEOUT = 5.0
"""Seconds that the end of the worker waits for a file that is being read."""

_logger = logging.getLogger("greenroom")


class JobMetrics:
    """Metrics of a pool's jobs. A process that ends leaves its counts, and none of its live gauges.

    One thread does all the work in order, because files take time to read.
    """

    def __init__(self, pool: ProcessPool) -> None:
        folder = os.environ.get(VARIABLE)
        self._folder = None if not folder else Path(folder)
        self._pool = pool
        self._thread = ThreadPoolExecutor(1, "greenroom-job-metrics")
        self._files: _Files | None = None
        self._rendering: asyncio.Future[bytes] | None = None
        self._unsubscribe: Callable[[], None] = _nothing
        if self._folder is not None:
            values.ValueClass = values.MutexValue  # keeps the worker's own figures out of the folder

    @property
    def is_on(self) -> bool:
        return self._folder is not None

    def start(self) -> None:
        """Empty the folder, and follow the pool. Raises ``OSError`` if the folder cannot be used.

        Figures of an earlier worker are deleted. LiveKit's worker does the same.
        """
        if self._folder is not None:
            self._files = _Files(self._folder)
            self._unsubscribe = self._pool.subscribe(self._on_event)

    async def render(self) -> bytes:
        """Return the metrics of all jobs in Prometheus' text format. Calls at the same time share one answer."""
        assert self._files is not None  # called only if is_on, and after start()
        if self._rendering is None or self._rendering.done():
            self._rendering = asyncio.get_running_loop().run_in_executor(self._thread, self._files.render)
        return await asyncio.shield(self._rendering)  # a client that goes must not cancel the answer to others

    async def close(self) -> None:
        self._unsubscribe()
        if self._files is not None:
            loop = asyncio.get_running_loop()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await loop.run_in_executor(self._thread, self._files.close)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _on_event(self, event: Event) -> None:
        if self._files is None:
            return
        if isinstance(event, ProcessEnded) and event.report.pid is not None:
            self._thread.submit(self._files.reap, str(event.report.pid))
        elif isinstance(event, ZygoteStarted) and event.pid is not None:
            self._thread.submit(self._files.take_live, str(event.pid))


def _nothing() -> None: ...


class _Place(NamedTuple):
    """File of the folder, with the name ``KIND_PID.db``."""

    path: Path
    kind: str
    pid: str


class _Files:
    """Files of the jobs, and the figures of ended jobs. Used by one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ended: dict[str, Figures] = {kind: {} for kind in ENDED_KINDS}
        self._of_zygote: dict[str, Figures] = {}
        self._has_warned_of_most = False
        self._warned: set[str] = set()
        """Names of the files for which a warning was logged."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.db"):
            path.unlink(missing_ok=True)
        # A folder of its own: jobs write to the other folder, and could change a file during the merge.
        self._own = tempfile.TemporaryDirectory(prefix="greenroom-metrics-")

    def close(self) -> None:
        self._own.cleanup()

    def render(self) -> bytes:
        for pid in {place.pid for place in self._places()}:
            if not Path("/proc", pid).exists():
                self.reap(pid)  # a zygote, or a process that a job started: no event reports its end
        return generate_latest(self)

    def collect(self) -> Iterable[Metric]:
        """Return the sum of the figures of live and of ended processes. Called by ``generate_latest``."""
        known = [(f"{place.kind}_{place.pid}.db", self._figures_in(place)) for place in self._places()]
        known += [(f"{kind}_ended.db", figures) for kind, figures in self._ended.items()]
        known += self._of_zygote.items()
        paths = [Path(self._own.name, name) for name, figures in known if figures]
        for path, figures in zip(paths, filter(None, (figures for _, figures in known)), strict=True):
            path.write_bytes(metric_files.packed(figures))
        try:
            return MultiProcessCollector.merge(list(map(str, paths)), accumulate=True)  # type: ignore[no-any-return,no-untyped-call]
        finally:
            for path in paths:
                path.unlink()

    def reap(self, pid: str) -> None:
        """Add up the figures of an ended process, and remove its files.

        Gauges that are live, or that have the process as a label, end with the process.
        """
        for place in self._places():
            if place.pid == pid:
                if place.kind in ENDED_KINDS:
                    self._add(place.kind, self._figures_in(place))
                self._warned.discard(place.path.name)
                with suppress(OSError):
                    place.path.unlink()

    def take_live(self, pid: str) -> None:
        """Take the live gauges of a zygote out of the folder. The import of the app has made them in the zygote.

        The latest zygote's gauges stay in the answer, so that a gauge is 0 if no job is live.
        """
        self._of_zygote.clear()
        for place in self._places():
            if place.pid == pid and place.kind.startswith("gauge_live"):
                self._of_zygote[place.path.name] = self._figures_in(place)
                with suppress(OSError):
                    place.path.unlink()

    def _add(self, kind: str, figures: Figures) -> None:
        kept, merge = self._ended[kind], ENDED_KINDS[kind]
        for key, figure in figures.items():
            if key in kept:
                kept[key] = merge(kept[key], figure)
            elif len(kept) < MOST_SERIES:
                kept[key] = figure
            elif not self._has_warned_of_most:
                self._has_warned_of_most = True
                text = "ended jobs have left more than %d series of kind %s. New series end with their job: %s"
                extra = log_fields("job_metrics_left_out", kind=kind, most=MOST_SERIES)
                _logger.warning(text, MOST_SERIES, kind, key, extra=extra)

    def _places(self) -> list[_Place]:
        found = []
        for path in self._folder.glob("*.db"):
            kind, _, pid = path.stem.rpartition("_")
            if kind in KINDS and pid.isascii() and pid.isdecimal():
                found.append(_Place(path, kind, pid))
        return found

    def _figures_in(self, place: _Place) -> Figures:
        try:
            return metric_files.unpacked(metric_files.read(place.path), place.kind)
        except FileNotFoundError:
            return {}
        except (OSError, SpoiltFile) as error:
            if place.path.name not in self._warned:  # one warning: the file is read at each scrape
                self._warned.add(place.path.name)
                extra = log_fields("job_metrics_left_out", job_pid=int(place.pid), cause=str(error))
                text = "the metrics of process %s in %s are left out: %s"
                _logger.warning(text, place.pid, place.path.name, error, extra=extra)
            return {}
