"""The bytes of a stream, taken apart into lines. Pure: bytes in, lines out.

A line ends with a newline, or with a carriage return and a newline. Text that a lone carriage return
ends is a *state*, such as one of a progress bar: the next state, or the line, takes its place.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LONGEST_LINE", "Line", "StreamLines"]

LONGEST_LINE = 16 * 1024
"""Bytes of a line; the rest is counted."""


class Line(NamedTuple):
    text: str
    missing: int = 0
    """Bytes that were cut off its end; the text says so, too."""
    is_state: bool = False


class StreamLines:
    """Holds one chunk of input and the beginning of one line, however much is written."""

    def __init__(self) -> None:
        self.state: Line | None = None
        """The latest state, until it is taken or overwritten."""
        self._backlog = b""
        self._kept = bytearray()
        self._missing = 0
        self._is_returned = False
        """A carriage return came last. It may still be followed by a newline."""

    @property
    def has_backlog(self) -> bool:
        """Tell whether :meth:`take` and :meth:`skip` have bytes left to see."""
        return bool(self._backlog)

    def feed(self, data: bytes) -> None:
        self._backlog = self._backlog + data if self._backlog else data

    def take(self, most: int) -> list[Line]:
        """Return the next lines, each after the state that it has overwritten; at most so many lines."""
        *ended, rest = self._backlog.split(b"\n", most)
        found: list[Line] = []
        for piece in ended:
            self._end_line(piece, found)
        self._backlog = rest
        if len(ended) < most:
            self._append_rest()
        return found

    def skip(self) -> tuple[int, int]:
        """Let go of all lines that have ended. Return their number, and their bytes."""
        whole, newline, rest = self._backlog.rpartition(b"\n")
        lines = size = 0
        if newline:
            # Counted and not split: a flood of newlines holds 65,536 lines a chunk.
            lines, size = whole.count(b"\n") + 1, len(self._kept) + self._missing + len(whole) + 1
            self._clear_line()
            self.state = None
        self._backlog = rest
        self._append_rest()
        return lines, size

    def unfinished(self) -> Line | None:
        """Return what has come of a line that has not ended."""
        return self._line() if self._kept.strip() else None

    def take_state(self) -> Line | None:
        state, self.state = self.state, None
        return state

    def take_last(self) -> Line | None:
        """Return the rest, after the end of the stream."""
        state = self.take_state()
        last = self.unfinished() or state
        self._clear_line()
        return None if last is None else last._replace(is_state=False)

    def _end_line(self, piece: bytes, found: list[Line]) -> None:
        self._append(piece)
        state, line = self.take_state(), self._line()
        if state is not None and not line.text.strip():
            line = state._replace(is_state=False)  # a bar that was wiped off at its end
        elif state is not None:
            found.append(state)
        found.append(line)
        self._clear_line()

    def _append_rest(self) -> None:
        rest, self._backlog = self._backlog, b""
        self._append(rest)

    def _append(self, piece: bytes) -> None:
        """Add to the line that has not ended."""
        if not piece:
            return
        if self._is_returned:
            piece = b"\r" + piece
        text = piece.rstrip(b"\r")
        self._is_returned = len(text) < len(piece)
        before, returned, after = text.rpartition(b"\r")
        if returned:
            self._overwrite(before)
        self._keep(after)

    def _overwrite(self, before: bytes) -> None:
        """Make a state of the last text in ``before``; those in front of it were overwritten, too."""
        # A bar may be wiped off with blanks: that is no state.
        _, returned, last = before.rstrip(b"\r \t").rpartition(b"\r")
        if returned:
            self._clear_line()
        self._keep(last)
        if self._kept.strip():
            self.state = self._line(is_state=True)
        self._kept.clear()
        self._missing = 0

    def _keep(self, piece: bytes) -> None:
        room = LONGEST_LINE - len(self._kept)
        self._kept += piece[:room]
        self._missing += max(len(piece) - room, 0)

    def _line(self, *, is_state: bool = False) -> Line:
        if not self._missing:
            return Line(self._kept.decode("utf-8", "replace"), 0, is_state)
        whole = _whole_characters(self._kept)
        missing = self._missing + len(self._kept) - len(whole)
        return Line(f"{whole.decode('utf-8', 'replace')}… ({missing} bytes more)", missing, is_state)

    def _clear_line(self) -> None:
        self._kept.clear()
        self._missing = 0
        self._is_returned = False


def _whole_characters(cut: bytearray) -> bytearray:
    """Leave out the last character, if it may have been cut in two."""
    end = len(cut)
    while end > len(cut) - 4 and cut[end - 1] & 0xC0 == 0x80:
        end -= 1
    return cut[: end - 1] if cut[end - 1] >= 0xC0 else cut
