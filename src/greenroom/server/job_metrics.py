"""What jobs count by prometheus_client: gathered from the files that its multiprocess mode has each process write."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prometheus_client import Metric, values
from prometheus_client.exposition import generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from ..pool import ProcessPool
from ..pool.events import Event, ProcessEnded

__all__ = ["VARIABLE", "JobMetrics"]

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

LARGEST = 32 * 1024 * 1024
"""Bytes of a file that is read: prometheus_client begins with 1 MiB, for some 10,000 series."""

_logger = logging.getLogger("greenroom")


class JobMetrics:
    """Follows the pool: a process that has ended leaves its counts, in one file for all of them, and no live gauge."""

    def __init__(self, pool: ProcessPool) -> None:
        folder = os.environ.get(VARIABLE)
        self._folder = None if not folder else Path(folder)
        self._busy = asyncio.Lock()  # a file must not go while the others are read
        self._tasks: set[asyncio.Task[None]] = set()
        if self._folder is not None:
            values.ValueClass = values.MutexValue  # the worker's own figures are no job's
            self._begin(self._folder)
            pool.subscribe(self._on_event)

    @property
    def is_on(self) -> bool:
        return self._folder is not None

    async def render(self) -> bytes:
        """All of them, in Prometheus' text format."""
        async with self._busy:
            return await asyncio.to_thread(self._collected)

    async def close(self) -> None:
        await asyncio.gather(*self._tasks)

    def _begin(self, folder: Path) -> None:
        """What an earlier worker has left is not this one's. As LiveKit's worker does."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.db"):
            path.unlink(missing_ok=True)

    def _collected(self) -> bytes:
        for pid in self._dead():
            self._merge(pid)
        return generate_latest(self)  # all that it asks for is collect()

    def collect(self) -> Iterable[Metric]:
        """Sum up the files, without those that cannot be read."""
        assert self._folder is not None  # or nobody asks
        paths = [path for path in self._folder.glob("*.db") if _is_plain(path)]
        try:
            return _merged(paths)
        except _SPOILT:
            return _merged([path for path in paths if _is_whole(path)])

    def _dead(self) -> set[int]:
        """The processes that no event tells of: zygotes, and what a job itself has started."""
        assert self._folder is not None  # or nobody asks
        pids = {path.stem.rpartition("_")[2] for path in self._folder.glob("*.db")}
        return {int(pid) for pid in pids if pid.isdecimal() and not Path("/proc", pid).exists()}

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ProcessEnded) and event.report.pid is not None:
            task = asyncio.create_task(self._bury(event.report.pid), name="greenroom-job-metrics")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _bury(self, pid: int) -> None:
        async with self._busy:
            await asyncio.to_thread(self._merge, pid)

    def _merge(self, pid: int) -> None:
        assert self._folder is not None  # or nothing is followed
        for path in self._folder.glob(f"*_{pid}.db"):
            kind = path.name.removesuffix(f"_{pid}.db")
            try:
                if kind in _MERGES and _is_plain(path):
                    _add(path, self._folder / f"{kind}_ended.db", _MERGES[kind])
            except _SPOILT as error:
                _logger.warning("what process %d has counted in %s is left out: %s", pid, path.name, error)
            path.unlink(missing_ok=True)  # a gauge that is live, or has its process for a label, ends with that


_SPOILT = (OSError, ValueError, struct.error, KeyError, IndexError, TypeError)
"""What reading a file raises of which a job has made something else."""


def _is_plain(path: Path) -> bool:
    """Whether it is a file of a size that can be read: a pipe would hold up the reader, and jobs can make one."""
    try:
        found = path.lstat()
    except OSError:
        return False  # it has just been buried
    return stat.S_ISREG(found.st_mode) and found.st_size <= LARGEST


def _is_whole(path: Path) -> bool:
    try:
        _merged([path])
    except _SPOILT as error:
        _logger.warning("what a job counts in %s is left out: %s", path.name, error)
        return False
    return True


def _merged(paths: list[Path]) -> Iterable[Metric]:
    names = [str(path) for path in paths]
    return MultiProcessCollector.merge(names, accumulate=True)  # type: ignore[no-any-return,no-untyped-call]


_Figure = tuple[float, float]
"""Value and time."""


def _sum(before: _Figure, now: _Figure) -> _Figure:
    return before[0] + now[0], 0.0


def _latest(before: _Figure, now: _Figure) -> _Figure:
    return max(before, now, key=lambda figure: figure[1])


_MERGES: dict[str, Callable[[_Figure, _Figure], _Figure]] = {
    "counter": _sum,
    "histogram": _sum,
    "summary": _sum,
    "gauge_sum": _sum,
    "gauge_max": max,
    "gauge_min": min,
    "gauge_mostrecent": _latest,
}
"""What is kept of a process that has ended, by the kind of its file."""


def _add(source: Path, target: Path, merge: Callable[[_Figure, _Figure], _Figure]) -> None:
    files: Any = MmapedDict
    kept = files(str(target))
    try:
        known = {key: (value, at) for key, value, at, _ in kept.read_all_values_from_file(str(target))}
        for key, value, at, _ in files.read_all_values_from_file(str(source)):
            kept.read_value(key)  # makes room for a new one
            kept.write_value(key, *(merge(known[key], (value, at)) if key in known else (value, at)))
    finally:
        kept.close()
