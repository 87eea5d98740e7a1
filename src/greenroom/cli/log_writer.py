"""Log lines are written by a thread of their own: whoever reads them slowly must not hold up the event loop."""

from __future__ import annotations

import logging
import os
import queue
import threading

__all__ = ["LogWriter"]

_LONGEST_QUEUE = 20_000
_LAST_LINES = 2.0
"""Seconds for what is still to be written at the end."""


class LogWriter(logging.Handler):
    """Writes lines to an fd. What does not fit into its queue is dropped, and counted."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lines: queue.Queue[str | None] = queue.Queue(_LONGEST_QUEUE)
        self._dropped = 0
        # A daemon: if nobody reads on, that must not keep the worker from ending.
        self._thread = threading.Thread(target=self._write_all, name="greenroom-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what is there, but wait no longer than a moment for it."""
        try:
            self._lines.put(None, timeout=_LAST_LINES)
            self._thread.join(_LAST_LINES)
        except queue.Full:
            self._dropped += 1  # nobody reads: there is no one to tell
        super().close()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            if dropped:
                line = f"{line}\n... {dropped} log lines were dropped, because they were not read fast enough"
            try:
                self._write(f"{line}\n".encode("utf-8", "backslashreplace"))
            except OSError:
                self._dropped += (
                    1  # a full disk, or a reader that has gone: told with the next line that can be written
                )

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]
