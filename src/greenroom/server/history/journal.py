"""Records with changes that are not on disk yet."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from .record import Record
from .rows import Row, row_of
from .sampler import WRITTEN_EVERY
from .store import HistoryStore

__all__ = ["Journal"]

AT_ONCE = 20
"""Jobs that are made into rows in one turn of the event loop."""


class Journal:
    """Queue of changed records for the disk. Without a ``store``, changes are forgotten."""

    def __init__(self, store: HistoryStore | None) -> None:
        self._store = store
        self._changed: dict[tuple[str, float], Record] = {}
        """Changed records by id and time: an id can come again."""
        self._due: OrderedDict[tuple[str, float], Record] = OrderedDict()
        """Those of them that are being put into the queue for the disk, the one that changed first at the front."""
        self._written: dict[str, int] = {}
        """For each job: number of its last log line that was given to the disk."""

    def note(self, record: Record) -> None:
        """Have the present state of a record written with the next batch."""
        self._changed[record.id, record.at] = record

    def forget(self, job_id: str) -> None:
        """Forget which lines of a job are written, since its record is dropped."""
        self._written.pop(job_id, None)

    async def flush_all(self) -> None:
        """Put all changes into the queue for the disk, also those that come meanwhile."""
        while self._changed or self._due:
            await self.flush()

    async def flush(self) -> None:
        """Put what has changed into the queue for the disk, a few records in a turn of the event loop.

        What changes meanwhile waits for the next call. Else jobs that log all the time would delay the ends of others.
        """
        if self._store is None:
            self._changed.clear()
            return
        self._due.update(self._changed)
        self._changed = {}
        while self._due:
            self._store.write(self._next_rows())
            await asyncio.sleep(0)

    def _next_rows(self) -> list[Row]:
        now = time.time()
        rows: list[Row] = []
        while self._due and len(rows) < AT_ONCE:
            _, record = self._due.popitem(last=False)
            # The samples of a call of an hour are long, so they are written less often than its lines.
            has_life = record.ended is not None or record.figures.count % WRITTEN_EVERY == 0
            rows.append(row_of(record, now, self._written.get(record.id, 0), has_life=has_life))
            self._written[record.id] = record.lines.count
        return rows
