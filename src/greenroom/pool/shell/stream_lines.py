"""Lines in the bytes of a stream. Pure: bytes in, lines out.

A line ends with a newline, or with a carriage return and a newline. Text that ends with a lone carriage return is a
*state*, such as a state of a progress bar. The next state, or the line, replaces the state before.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LONGEST_LINE", "Line", "StreamLines"]

LONGEST_LINE = 16 * 1024
"""Most bytes of a line. The rest is counted."""


class Line(NamedTuple):
    text: str
    missing: int = 0
    """Number of bytes that were cut off the end. The text names this number, too."""
    is_state: bool = False


class StreamLines:
    """Splitter of a stream into lines, which holds at most one chunk of input and the beginning of one line."""

    def __init__(self) -> None:
        self.state: Line | None = None
        """Latest state, until it is taken or overwritten."""
        self._backlog = b""
        self._kept = bytearray()
        self._missing = 0
        self._is_returned = False
        """True if a carriage return came last. A newline may still follow."""

    @property
    def has_backlog(self) -> bool:
        """True while bytes are left for :meth:`take` or :meth:`skip`."""
        return bool(self._backlog)

    def feed(self, data: bytes) -> None:
        self._backlog = self._backlog + data if self._backlog else data

    def take(self, most: int) -> list[Line]:
        """Return the next lines, at most ``most``. The state that a line has overwritten comes before that line."""
        *ended, rest = self._backlog.split(b"\n", most)
        found: list[Line] = []
        for piece in ended:
            self._end_line(piece, found)
        self._backlog = rest
        if len(ended) < most:
            self._append_rest()
        return found

    def skip(self) -> tuple[int, int]:
        """Drop all lines that have ended. Return the number of these lines, and their size in bytes."""
        whole, newline, rest = self._backlog.rpartition(b"\n")
        lines = size = 0
        if newline:
            # Count the newlines, and do not split: a chunk of newlines alone has 65,536 lines.
            lines, size = whole.count(b"\n") + 1, len(self._kept) + self._missing + len(whole) + 1
            self._clear_line()
            self.state = None
        self._backlog = rest
        self._append_rest()
        return lines, size

    def unfinished(self) -> Line | None:
        """Return the beginning of a line that has not ended, or ``None`` if the beginning is blank."""
        return self._line() if self._kept.strip() else None

    def take_state(self) -> Line | None:
        state, self.state = self.state, None
        return state

    def take_last(self) -> Line | None:
        """Return the last line or state after the end of the stream, if there is one."""
        state = self.take_state()
        last = self.unfinished() or state
        self._clear_line()
        return None if last is None else last._replace(is_state=False)

    def _end_line(self, piece: bytes, found: list[Line]) -> None:
        self._append(piece)
        state, line = self.take_state(), self._line()
        if state is not None and not line.text.strip():
            line = state._replace(is_state=False)  # a progress bar that was erased at its end
        elif state is not None:
            found.append(state)
        found.append(line)
        self._clear_line()

    def _append_rest(self) -> None:
        rest, self._backlog = self._backlog, b""
        self._append(rest)

    def _append(self, piece: bytes) -> None:
        """Add bytes to the line that has not ended."""
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
        """Make a state of the last text in ``before``. This text has overwritten the texts in front of it."""
        # Blanks may erase a progress bar: they are no state.
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
    """Return the text without its last character, if the cut may have divided that character."""
    end = len(cut)
    while end > len(cut) - 4 and cut[end - 1] & 0xC0 == 0x80:
        end -= 1
    return cut[: end - 1] if cut[end - 1] >= 0xC0 else cut
