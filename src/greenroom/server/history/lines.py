"""Log lines of one job: the first and the last ones, within a bound."""

from __future__ import annotations

from collections import deque
from sys import intern
from typing import NamedTuple

from ...clean_text import cut_end

__all__ = ["Line", "Lines"]

FIRST, LAST = 100, 400
"""Most lines from the beginning of a job, and from its end."""
FIRST_SIZE, LAST_SIZE = 16 * 1024, 48 * 1024
"""Most characters of these lines."""
LONGEST_LINE = 4096


class Line(NamedTuple):
    """Line of a job's log."""

    number: int
    """Number in the job's log, from 1 on."""
    at: float
    level: str
    origin: str
    """Logger, or ``stdout`` or ``stderr``."""
    text: str


class Lines:
    """First and last lines of a job. The lines between them are counted."""

    def __init__(self) -> None:
        self._first: list[Line] = []
        self._last: deque[Line] = deque()
        self._first_size = self._last_size = 0
        self._is_first_full = False
        self.count = 0
        """Number of all lines so far."""

    @property
    def left_out(self) -> int:
        """Number of lines between the first and the last ones, which are not kept."""
        return self.count - len(self._first) - len(self._last)

    @property
    def dropped(self) -> tuple[int, int] | None:
        """First and last number of the lines that are not kept; ``None`` if all are."""
        first = len(self._first) + 1
        return (first, first + self.left_out - 1) if self.left_out else None

    def add(self, at: float, level: str, origin: str, text: str) -> None:
        self.count += 1
        line = Line(self.count, at, intern(level), intern(origin), cut_end(text, LONGEST_LINE))
        size = len(line.text)
        if not self._is_first_full and len(self._first) < FIRST and self._first_size + size <= FIRST_SIZE:
            self._first.append(line)
            self._first_size += size
            return
        self._is_first_full = True
        self._last.append(line)
        self._last_size += size
        while len(self._last) > LAST or self._last_size > LAST_SIZE:
            self._last_size -= len(self._last.popleft().text)

    def after(self, number: int) -> list[Line]:
        """Return the kept lines with a higher number."""
        return [line for line in (*self._first, *self._last) if line.number > number]

    @property
    def size(self) -> int:
        """Characters of the kept lines."""
        return self._first_size + self._last_size
