"""Writer of log lines in a thread of its own, so that a slow reader does not hold up the event loop."""

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
"""Most characters that wait to be written. So a reader that has stopped does not fill the memory."""
_LAST_LINES = 2.0
"""Seconds for the lines that remain at the end: to find room in the queue, and then to be written."""


class LogWriter(logging.Handler):
    """Log handler that writes lines to an fd. Lines that do not fit into its queue are dropped and counted."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lines: queue.Queue[str | None] = queue.Queue(_LONGEST_QUEUE)
        self._dropped = 0
        # Two sums, so that each has one writer at a time: threads that log hold the handler's lock for the first sum,
        # and only the thread below changes the second.
        self._put_size = self._taken_size = 0
        self._is_within_line = False
        # A daemon thread, so that a reader that has stopped does not keep the worker from ending.
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
        """Write the remaining lines, but wait only a few seconds."""
        try:
            self._lines.put(None, timeout=_LAST_LINES)
            self._thread.join(_LAST_LINES)
        except queue.Full:
            self._dropped += 1  # nobody reads the log, so no line can report this
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
                # A full disk, or a reader that has gone. The next line that can be written reports the loss.
                self._dropped += dropped + 1

    def _write(self, line: str) -> None:
        # If only a part of the last line was written, this line must still be a line of its own.
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
    text = f"{dropped} log lines were dropped: the reader was too slow, or a line could not be formatted or written"
    fields = log_fields("log_lines_dropped", lines=dropped)
    known = {"name": "greenroom", "levelno": logging.WARNING, "levelname": "WARNING", "msg": text}
    return logging.makeLogRecord(known | fields)
