"""What children print and log: read as fast as it comes, passed on at a bounded rate, the rest counted."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["Budget", "LogCapture", "OutputLine", "StreamCapture", "emit"]

_CHUNK = 64 * 1024
_MAX_LINE = 16 * 1024

_app_logger = logging.getLogger("greenroom.app")


class OutputLine(NamedTuple):
    """One line of output, or one log record, of a child or of the zygote."""

    text: str
    level: int
    stream: str
    """``stdout``, ``stderr`` or ``log``."""
    logger: str = ""
    error: str | None = None
    fields: Mapping[str, object] | None = None
    """What the app has given to the record besides (``extra=``)."""


def emit(line: OutputLine, ids: Mapping[str, object]) -> None:
    """Pass a line on to this process's own logging, under ``greenroom.app``, with process and job ids."""
    text = f"{line.text}\n{line.error}" if line.error else line.text
    extra = {**ids, "stream": line.stream, "app_logger": line.logger, "fields": line.fields}
    _app_logger.log(line.level, "%s", text, extra=extra)


@dataclass(slots=True)
class Budget:
    """A token bucket. A job that floods its log must not keep the supervisor from its other sessions."""

    rate: float
    burst: float
    parent: Budget | None = None
    _tokens: float = -1.0
    _at: float = 0.0

    def take(self) -> bool:
        now = time.monotonic()
        if self._tokens < 0:
            self._tokens = self.burst
        else:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1 or (self.parent is not None and not self.parent.take()):
            return False
        self._tokens -= 1
        return True


class _Capture:
    """Reads an fd on the event loop until its end."""

    _most_reads = 64
    """More than a pipe holds, to be read when its writer is dead."""

    def __init__(self, fd: int, emit: Callable[[OutputLine], object], budget: Budget) -> None:
        self._fd = fd
        self._emit = emit
        self._budget = budget
        self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._on_readable)
        self.dropped = 0

    def finish(self) -> None:
        """Read what is there, and stop. The writer is dead; the fd is its owner's to close."""
        # Bounded: a grandchild that survived for now may go on writing.
        for _ in range(self._most_reads):
            if self._loop is None or not self._on_readable():
                break
        self._stop()

    def _stop(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = None

    def _on_readable(self) -> bool:
        try:
            data = self._read()
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self._stop()
        return bool(data)

    def _read(self) -> bytes:
        return os.read(self._fd, _CHUNK)

    def _take(self, data: bytes) -> None:
        raise AssertionError("a subclass says what to do with it")

    def _pass_on(self, line: OutputLine) -> None:
        if self._budget.take():
            self._emit(line)
        else:
            self.dropped += 1


class StreamCapture(_Capture):
    """stdout or stderr, by line."""

    def __init__(self, fd: int, stream: str, emit: Callable[[OutputLine], object], budget: Budget) -> None:
        super().__init__(fd, emit, budget)
        self._stream = stream
        self._level = logging.WARNING if stream == "stderr" else logging.INFO
        self._partial = b""

    def finish(self) -> None:
        super().finish()
        if self._partial:
            self._line(self._partial)
            self._partial = b""

    def _take(self, data: bytes) -> None:
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        if len(self._partial) > _MAX_LINE:
            lines.append(self._partial)
            self._partial = b""
        for number, line in enumerate(lines):
            if not self._budget.take():
                self.dropped += len(lines) - number
                return
            self._line(line)

    def _line(self, line: bytes) -> None:
        text = line[:_MAX_LINE].decode("utf-8", "replace").rstrip("\r")
        self._emit(OutputLine(text, self._level, self._stream))


class LogCapture(_Capture):
    """Log records, one packet each."""

    _most_reads = 4096  # each brings one record, and hundreds fit into a socket's buffer

    def _take(self, data: bytes) -> None:
        try:
            self._pass_on(_parse(json.loads(data)))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            self.dropped += 1  # not a record; the channel itself is still in step, packet by packet


def _parse(values: dict[str, Any]) -> OutputLine:
    error = values["error"]
    return OutputLine(
        str(values["message"]),
        int(values["level"]),
        "log",
        str(values["logger"]),
        None if error is None else str(error),
        dict(values["fields"]),
    )
