"""Deadlines of all records, in one heap. A record has one deadline at a time."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

__all__ = ["Deadlines", "Timed"]


@dataclass(slots=True, eq=False, kw_only=True)
class Timed:
    """Base class of records that can have a deadline."""

    due: float | None = None
    """Time of the deadline on the pool's clock; ``None`` without a running deadline."""
    left: float | None = None
    """Seconds that a held deadline has left once it runs again."""
    is_held: bool = False
    """True while the deadline is held."""
    serial: int = 0
    """Serial number of the record's entry in the heap."""


@dataclass(slots=True)
class Deadlines:
    """Heap of deadlines, with entries that can become void.

    A void entry stays in the heap for a while, but refers to no record. So an ended record is freed at once.
    """

    _heap: list[tuple[float, int]] = field(default_factory=list)
    _records: dict[int, Timed] = field(default_factory=dict)
    _serial: int = 0

    def set(self, record: Timed, now: float, seconds: float) -> None:
        """Set the deadline of a record to ``seconds`` from now. If held, the time runs from :meth:`go_on`."""
        self._void(record)
        if record.is_held:
            record.due, record.left = None, seconds
            return
        self._serial += 1
        record.due, record.left, record.serial = now + seconds, None, self._serial
        self._records[self._serial] = record
        heapq.heappush(self._heap, (record.due, self._serial))
        if self._serial % 1024 == 0:
            self._compact()

    def clear(self, record: Timed) -> None:
        """Remove the deadline of a record."""
        self._void(record)
        record.due = record.left = None

    def hold(self, record: Timed, now: float) -> None:
        """Hold the deadline of a record, and each one set later, until :meth:`go_on`."""
        if record.is_held:
            return
        record.is_held = True
        if record.due is not None:
            record.left = max(record.due - now, 0.0)
        self._void(record)
        record.due = None

    def go_on(self, record: Timed, now: float) -> None:
        """Let a held deadline run again."""
        if not record.is_held:
            return
        record.is_held = False
        if record.left is not None:
            self.set(record, now, record.left)

    def know(self, record: Timed) -> None:
        """Add a record that has a deadline already, when records are read from a flight recording."""
        if record.due is not None:
            self._records[record.serial] = record
            heapq.heappush(self._heap, (record.due, record.serial))

    def next(self) -> float | None:
        """Return the time of the next deadline; ``None`` without one."""
        while self._heap and self._heap[0][1] not in self._records:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> Timed | None:
        """Return a record whose deadline has passed, and remove this deadline; ``None`` without such a record."""
        due = self.next()
        if due is None or due > now:
            return None
        record = self._records[heapq.heappop(self._heap)[1]]
        self.clear(record)
        return record

    def _void(self, record: Timed) -> None:
        self._records.pop(record.serial, None)

    def _compact(self) -> None:
        """Drop void entries. Many short jobs with a long ``job_timeout`` would fill the heap with such entries."""
        self._heap = [entry for entry in self._heap if entry[1] in self._records]
        heapq.heapify(self._heap)
