"""Stacks of a crash in the lines that a process has written to stderr."""

from __future__ import annotations

from ...system.crash_stacks import MARK

__all__ = ["MOST", "CrashLines"]

MOST = 16 * 1024
"""Most characters that are kept of one process."""


class CrashLines:
    """Lines of stderr from the last ``Fatal Python error`` on.

    The interpreter itself writes to stderr after a fatal error, and so does ``faulthandler`` if the app has enabled it.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._room = 0

    def take(self, line: str) -> None:
        if line.startswith(MARK):
            self._lines, self._room = [], MOST
        if self._room > 0:
            self._lines.append(line[: self._room])
            self._room -= len(line) + 1

    def text(self) -> str | None:
        """Return the lines; ``None`` if there are none."""
        return "\n".join(self._lines) + "\n" if self._lines else None
