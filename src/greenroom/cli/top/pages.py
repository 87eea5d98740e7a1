"""Pages of text, which fold long lines and can be scrolled. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from functools import lru_cache
from typing import NamedTuple

from rich.cells import chop_cells

from ..text import harmless

__all__ = ["Page", "Window"]

KEPT_LINES = 1000
"""Most lines of a page. Above this, the first lines are dropped."""
_Place = tuple[int, int]
"""Number of a line, and of a row in the folded line."""


class Window(NamedTuple):
    """Rows of a page that the terminal shows."""

    rows: list[str]
    first: int
    """Index of the first of these rows among all rows."""
    total: int
    """Number of all rows."""


class Page:
    """Lines of text, and the place from which on they are shown.

    A page that follows shows its end, and stays at its end until the reader moves up.
    """

    def __init__(self, text: str = "", *, is_following: bool = False) -> None:
        self.is_following = is_following
        """True if the page is to show its end, whatever is appended."""
        self._can_follow = is_following
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._first = 0
        """Number of the first line that is kept."""
        self._place: _Place = (0, 0)
        """Place of the first row that is shown, unless the page follows its end."""
        self._size = (80, 20)
        """Width and height of the latest window, by which the page scrolls."""
        if text:
            self.replace(text)

    def replace(self, text: str) -> None:
        """Set the whole text. The reader stays at the same line, as far as there is one."""
        self._lines.clear()
        self._lines.extend(_lines(text))

    def append(self, text: str) -> None:
        for line in _lines(text):
            if len(self._lines) == KEPT_LINES:
                self._first += 1
            self._lines.append(line)

    def window(self, width: int, height: int) -> Window:
        """Return the rows to be shown on a terminal of this size."""
        self._size = width, height
        rows = self._rows()
        first = self._top(rows)
        return Window([text for *_, text in rows[first : first + height]], first, len(rows))

    def scroll(self, by: int) -> None:
        """Move by this number of rows, to the ends at most."""
        rows = self._rows()
        last = self._last(rows)
        top = min(max(self._top(rows) + by, 0), last)
        self.is_following = self._can_follow and top == last
        if rows:
            line, part, _ = rows[top]
            self._place = line, part

    def _rows(self) -> list[tuple[int, int, str]]:
        width = self._size[0]
        lines = enumerate(self._lines, self._first)
        return [(number, part, row) for number, line in lines for part, row in enumerate(_fold(line, width))]

    def _top(self, rows: list[tuple[int, int, str]]) -> int:
        last = self._last(rows)
        # A place is found again after another folding, and after lines were dropped or appended.
        return last if self.is_following else min(bisect_left(rows, (*self._place, "")), last)

    def _last(self, rows: list[tuple[int, int, str]]) -> int:
        """Return the index of the first row if the end is shown."""
        return max(len(rows) - self._size[1], 0)


def _lines(text: str) -> list[str]:
    return harmless(text).rstrip("\n").split("\n")


@lru_cache(maxsize=2 * KEPT_LINES)
def _fold(line: str, width: int) -> tuple[str, ...]:
    """Return the rows of a line, at least one."""
    return tuple(chop_cells(line.expandtabs(), max(width, 1))) or ("",)
