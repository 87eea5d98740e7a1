"""Log lines are written by a thread of their own: whoever reads them slowly must not hold up the event loop."""

from __future__ import annotations

import logging
import os
import queue
import select
import threading

from ..log_fields import log_fields

__all__ = ["LogWriter"]

_LONGEST_QUEUE = 20_000
_LARGEST_QUEUE = 16 * 1024 * 1024
"""Characters that wait to be written: a reader that has stopped must not fill the memory."""
_LAST_LINES = 2.0
"""Seconds for what is still to be written at the end."""


class LogWriter(logging.Handler):
    """Writes lines to an fd. What does not fit into its queue is dropped, and counted."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lines: queue.Queue[str | None] = queue.Queue(_LONGEST_QUEUE)
        self._dropped = 0
        # Two sums, since each is changed by one thread at a time: the first under the handler's lock.
        self._put_size = self._taken_size = 0
        self._is_within_line = False
        # A daemon: if nobody reads on, that must not keep the worker from ending.
        self._thread = threading.Thread(target=self._write_all, name="greenroom-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._put(self.format(record))
        except Exception:  # a full queue, or a record that cannot be formatted
            self._dropped += 1

    def _put(self, line: str) -> None:
        if self._put_size - self._taken_size > _LARGEST_QUEUE:
            raise queue.Full
        self._lines.put_nowait(line)
        self._put_size += len(line)

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
            self._taken_size += len(line)
            dropped, self._dropped = self._dropped, 0
            try:
                self._write(line)
                if dropped:
                    self._write(self.format(_notice(dropped)))
            except OSError:
                # A full disk, or a reader that has gone: told with the next line that can be written.
                self._dropped += dropped + 1

    def _write(self, line: str) -> None:
        # After a line that was written in part only, this one must still be a line of its own.
        start = "\n" if self._is_within_line else ""
        data = f"{start}{line}\n".encode("utf-8", "backslashreplace")
        while data:
            written = self._write_some(data)
            self._is_within_line |= written > 0
            data = data[written:]
        self._is_within_line = False

    def _write_some(self, data: bytes) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            # Another process has made the shared terminal or pipe non-blocking.
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            poll.poll()
            return 0


def _notice(dropped: int) -> logging.LogRecord:
    text = f"{dropped} lines of the log were dropped: not read fast enough, not formatted, or not written"
    fields = log_fields("log_lines_dropped", lines=dropped)
    known = {"name": "greenroom", "levelno": logging.WARNING, "levelname": "WARNING", "msg": text}
    return logging.makeLogRecord(known | fields)
