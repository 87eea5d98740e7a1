"""History of jobs on disk, which a thread of its own writes in batches.

The event loop only puts rows into a queue. If the disk is slow or full, or cannot be written, rows wait within a bound
and are then dropped and counted, and jobs do not notice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ...log_fields import log_fields
from .file import HistoryFile, check, connect, is_damage, is_restricted, locked
from .job_traces import JobTrace
from .lines import Line
from .rows import END_COLUMNS, LOST, Row, select
from .search import Query

__all__ = ["HistoryStore", "LostJob", "Stored"]

_logger = logging.getLogger("greenroom")

LONGEST_QUEUE = 500
"""Batches that the thread has not taken yet."""
MOST_WAITING = 2000
"""Rows that wait while the file cannot be written. Above this, the oldest are dropped."""
PRUNE_EVERY = 60.0
LOST_AT_ONCE = 100
"""Lost jobs that are read at once."""
PRUNE_SHARE = 0.1
"""Part of the time that a removal of old jobs may take."""
RETRY_AFTER = 5.0
"""Seconds from a failure to the next try. Each try takes CPU time for all rows that wait."""
LATE_AFTER = 5.0
"""Seconds that the disk has for a batch. A checkpoint, which waits for the disk, takes some milliseconds."""
CLOSE_TIMEOUT = 2.0
"""Seconds for a place in the queue, and again for the last rows."""

T = TypeVar("T")


class Stored(msgspec.Struct):
    """Job from the file: its brief, its life and its report as plain data, and its log lines."""

    brief: dict[str, Any]
    life: dict[str, Any]
    report: dict[str, Any] | None
    lines: list[Line]


class LostJob(msgspec.Struct):
    """Job that was lost with its worker, and is on the list of those whose spans are not sent."""

    number: int
    at: float
    ended: float
    brief: dict[str, Any]
    trace: JobTrace | None


class HistoryStore:
    """File with the records of jobs, for ``days`` and up to ``megabytes``.

    ``wanted`` is the setting ``shown_metadata``: metadata that may not be shown any more is removed from the file.
    """

    def __init__(self, path: Path, *, days: float, megabytes: float, wanted: tuple[str, ...] = ("all",)) -> None:
        self.path = path
        self._days = days
        self._most_bytes = megabytes * 2**20
        self._wanted = wanted
        self._refused = self._lost = 0
        """Rows for which there was no place in the queue, and rows that the thread has dropped."""
        self._has_failed = False
        """True from the first failure or delay, which is logged, until no batch waits any more."""
        self._busy_since: float | None = None
        """Time since when the thread works on a batch."""
        self._batches: queue.Queue[list[Row] | None] = queue.Queue(LONGEST_QUEUE)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="greenroom-history-read")
        self._writer = threading.Thread(target=self._write_all, name="greenroom-history", daemon=True)
        self._has_looked = threading.Event()
        """Set when the thread has tried to open the file for the first time."""
        self._look_until = float("inf")
        self._lock: int | None = None
        self._file: HistoryFile | None = None
        self._is_suspect = False
        """True if a reader has found damage. The thread that writes has pages in memory, and may find none."""
        self._is_pruning = False
        self._prune_pause = 0.0
        self._retry_at = self._pruned_at = float("-inf")

    @property
    def dropped(self) -> int:
        """Number of rows that were never written."""
        return self._refused + self._lost

    @property
    def is_failing(self) -> bool:
        """True while the file cannot be written, or the disk is late."""
        return self._has_failed or self._is_late()

    @property
    def waiting(self) -> int:
        """Number of batches that the thread has not taken yet."""
        return self._batches.qsize()

    def start(self) -> None:
        self._look_until = time.monotonic() + CLOSE_TIMEOUT
        self._writer.start()
        self.write([])  # open the file now, so that jobs that were lost with a worker can be found

    def write(self, rows: list[Row]) -> None:
        """Put rows into the queue, or drop and count them if the thread is far behind."""
        try:
            self._batches.put_nowait(rows)
        except queue.Full:
            self._refused += len(rows)
            self._warn(f"the disk is too slow, and {LONGEST_QUEUE} batches wait")
        if self._is_late():
            self._warn(f"the disk has not answered for {LATE_AFTER:g} s")

    async def close(self) -> None:
        """Write what is in the queue, but wait only a few seconds."""
        await asyncio.to_thread(self._close)

    async def find(self, job_id: str) -> Stored | None:
        """Return the latest job with this id; ``None`` if there is none, or if the file cannot be read."""
        return await self._read(lambda: self._find(job_id))

    async def search(self, query: Query, limit: int) -> list[dict[str, Any]]:
        """Return the briefs of the latest jobs that match, oldest first."""
        return await self._read(lambda: self._search(query, limit)) or []

    async def lost_jobs(self) -> list[LostJob] | None:
        """Return jobs that were lost with their worker, the oldest first; ``None`` if the file cannot be read now."""
        return await self._read(self._lost_jobs)

    async def forget_lost(self, numbers: Iterable[int]) -> bool:
        """Strike jobs off the list of those that were lost. Return false if the file cannot be written now."""
        return bool(await self._read(lambda: self._forget_lost(numbers)))

    # --- reading, in a thread ---------------------------------------------------------------------

    async def _read(self, fn: Callable[[], T]) -> T | None:
        def read() -> T | None:
            self._has_looked.wait(max(self._look_until - time.monotonic(), 0.0))
            return fn() if self._lock is not None else None  # else another worker uses the file: its jobs are not ours

        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, read)
        except (sqlite3.Error, msgspec.DecodeError, RuntimeError) as error:  # it is damaged, being replaced, or closed
            self._is_suspect = self._is_suspect or is_damage(error)
            return None

    def _find(self, job_id: str) -> Stored | None:
        with closing(connect(self.path, is_writer=False)) as file:
            if not is_restricted(file, self._wanted):
                return None
            found = file.execute(
                f"SELECT number, brief, life, report, {END_COLUMNS} FROM jobs WHERE id = ? ORDER BY at DESC LIMIT 1",
                (job_id,),
            ).fetchone()
            if found is None:
                return None
            number, brief, life, report, *columns = found
            lines = file.execute(
                "SELECT number, at, level, origin, text FROM lines WHERE job = ? ORDER BY number", (number,)
            )
            decode = msgspec.json.decode
            plain = None if report is None else decode(report)
            known = {"steps": [], "samples": []} if life is None else decode(life)
            return Stored(_brief(brief, *columns), known, plain, [Line(*line) for line in lines])

    def _search(self, query: Query, limit: int) -> list[dict[str, Any]]:
        with closing(connect(self.path, is_writer=False)) as file:
            if not is_restricted(file, self._wanted):
                return []
            text, values = select(query, limit)
            return [_brief(*row) for row in file.execute(text, values)][::-1]

    def _lost_jobs(self) -> list[LostJob]:
        with closing(connect(self.path, is_writer=False)) as file:
            found = file.execute(
                "SELECT number, at, ended, brief FROM lost JOIN jobs ON number = job ORDER BY number LIMIT ?",
                (LOST_AT_ONCE,),
            ).fetchall()
        return [LostJob(number, at, ended, *_brief_and_trace(brief)) for number, at, ended, brief in found]

    def _forget_lost(self, numbers: Iterable[int]) -> bool:
        with closing(connect(self.path, is_writer=True)) as file, file:
            file.executemany("DELETE FROM lost WHERE job = ?", [(number,) for number in numbers])
        return True

    # --- writing, in a thread ---------------------------------------------------------------------

    def _close(self) -> None:
        with suppress(queue.Full):
            self._batches.put(None, timeout=CLOSE_TIMEOUT)
            self._writer.join(CLOSE_TIMEOUT)
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _write_all(self) -> None:
        waiting: list[Row] = []
        while (rows := self._next_batch(has_some=bool(waiting))) is not None:
            waiting += rows
            if time.monotonic() >= self._retry_at:
                waiting = self._written(waiting)
                self._has_looked.set()
            surplus = max(len(waiting) - MOST_WAITING, 0)
            self._lost += surplus
            del waiting[:surplus]
        self._lost += len(self._written(waiting))
        if self._file is not None:
            self._file.close()
        if self._lock is not None:
            os.close(self._lock)

    def _next_batch(self, *, has_some: bool) -> list[Row] | None:
        """Wait for the next batch. An empty one comes after a time, if there is something to do without it."""
        self._busy_since = None
        retry = RETRY_AFTER if has_some or self._file is None else None
        timeout = self._prune_pause if self._is_pruning else retry
        try:
            batch = self._batches.get(timeout=timeout)
        except queue.Empty:
            batch = []
        self._busy_since = time.monotonic()
        return batch

    def _written(self, rows: list[Row]) -> list[Row]:
        """Write rows, and return those that must wait. Then remove some old jobs, if it is time."""
        try:
            file = self._open()
            if self._is_suspect:
                self._is_suspect = False
                check(self.path)
            self._put(file, rows)
            rows = []
            self._prune(file)
        except (OSError, sqlite3.Error) as error:
            self._is_pruning = False
            self._retry_at = time.monotonic() + RETRY_AFTER
            self._failed(error)
            return rows
        if self._batches.empty():
            self._has_failed = False
        return []

    def _prune(self, file: HistoryFile) -> None:
        """Take one step of a removal. The rows that have come meanwhile are written before the next step."""
        if not self._is_pruning and time.monotonic() - self._pruned_at <= PRUNE_EVERY:
            return
        self._pruned_at = begin = time.monotonic()
        self._is_pruning = file.prune(time.time() - 86_400 * self._days, self._most_bytes)
        self._prune_pause = (time.monotonic() - begin) * (1 / PRUNE_SHARE - 1)

    def _put(self, file: HistoryFile, rows: list[Row]) -> None:
        try:
            file.write(rows)
        except sqlite3.Error:
            raise
        except Exception:  # a row that SQLite does not take, such as half a surrogate pair: the others are written
            for row in rows:
                try:
                    file.write([row])
                except (UnicodeError, ValueError, TypeError):
                    self._lost += 1

    def _open(self) -> HistoryFile:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._lock is None:
                self._lock = locked(self.path.with_name(f"{self.path.name}.lock"))
            self._file = HistoryFile(self.path, self._wanted)
        return self._file

    def _failed(self, error: OSError | sqlite3.Error) -> None:
        """Log a failure. A file that is damaged is replaced."""
        if self._file is None or not is_damage(error):
            self._warn(str(error))
            return
        file, self._file = self._file, None
        try:
            file.replace_damaged(error)
        except OSError as problem:  # it is found damaged again at the next try
            self._warn(str(problem))
        else:
            self._retry_at = float("-inf")

    def _warn(self, cause: str) -> None:
        """Log the first failure since all was written."""
        if not self._has_failed:
            text = "the history of jobs cannot be written to %s: %s. Jobs go on; their records wait, within a bound"
            _logger.warning(text, self.path, cause, extra=log_fields("history_failed", cause=cause))
        self._has_failed = True

    def _is_late(self) -> bool:
        since = self._busy_since
        return since is not None and time.monotonic() - since > LATE_AFTER


def _brief_and_trace(brief: bytes) -> tuple[dict[str, Any], JobTrace | None]:
    plain: dict[str, Any] = msgspec.json.decode(brief)
    trace = plain.pop("trace", None)
    return plain, None if trace is None else JobTrace(*trace)


def _brief(
    brief: bytes, ended: float | None, outcome: str | None, reason: str | None, cause: str | None
) -> dict[str, Any]:
    """Return a brief as plain data. That of a job that was lost with its worker is of the time before."""
    plain: dict[str, Any] = msgspec.json.decode(brief)
    plain |= {"ended": ended, "outcome": outcome, "reason": reason, "cause": cause, "is_stuck": False, "beat_age": None}
    if cause == LOST:
        plain["detail"] = "the worker was killed, and its jobs with it"
    return plain
