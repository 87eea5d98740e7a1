"""Output and log records of children, which are read as fast as they come and passed on within an allowance."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...clean_text import clean
from ...log_fields import log_fields
from ...system import passed_fds
from ...wire.frames import MAX_LOG_PACKET
from .log_allowance import LogAllowance
from .stream_lines import Line, StreamLines

__all__ = ["LogCapture", "Loss", "Outlet", "OutputLine", "StreamCapture", "emit"]

_LINES_A_TURN = 32
"""Most lines that are passed on in one turn of the event loop."""
_STANDS = 1.0
"""Seconds without another byte, after which a line without an end is shown."""
_MOST_WAITS = 5
"""Most waits, of ``_STANDS`` seconds each, for the end of a line that is being written."""
_STATE_EVERY = 3.0
"""Seconds between two shown states of one stream, such as states of a progress bar."""
_FIRST_NOTICE, _NOTICE_EVERY = 1.0, 10.0
"""Seconds from the first loss to the log line about it, and between two such lines."""
_HIGHEST_LEVEL = 100

_logger = logging.getLogger("greenroom")
_app_logger = logging.getLogger("greenroom.app")


class OutputLine(NamedTuple):
    """Line of output, or log record, of a child or of the zygote."""

    text: str
    level: int
    stream: str
    """``stdout``, ``stderr`` or ``log``."""
    logger: str = ""
    error: str | None = None
    fields: Mapping[str, object] | None = None
    """Fields that the app has given to the record (``extra=``)."""


class Loss(NamedTuple):
    """Output that was dropped since the last such notice."""

    lines: int
    size: int


def emit(line: OutputLine | Loss, ids: Mapping[str, object]) -> None:
    """Log a line in this process, with the logger ``greenroom.app`` and the ids of process and job."""
    if isinstance(line, Loss):
        _log_loss(line, ids)
        return
    text = f"{line.text}\n{line.error}" if line.error else line.text
    extra = {**ids, "stream": line.stream, "app_logger": line.logger, "fields": line.fields}
    _app_logger.log(line.level, "%s", text, extra=extra)


def _log_loss(loss: Loss, ids: Mapping[str, object]) -> None:
    extra = log_fields("output_dropped", **ids, lines=loss.lines, bytes=loss.size)
    text = "%d lines, %d bytes of the output of process %s were dropped: it writes more than the log accepts"
    _logger.warning(text, loss.lines, loss.size, ids["process_id"], extra=extra)


class Outlet:
    """Outlet for the output of one process, within its allowance. The rest is dropped, and its size is logged."""

    def __init__(self, emit: Callable[[OutputLine | Loss], object], pool: LogAllowance) -> None:
        self.dropped = 0
        """Number of lines and records that were not passed on, or were passed on without their end."""
        self._emit = emit
        self._allowance = pool.of_process()
        self._loop = asyncio.get_running_loop()
        self._loss = Loss(0, 0)
        self._notice: asyncio.TimerHandle | None = None
        self._noticed_at = -_NOTICE_EVERY

    def room(self) -> int:
        """Return the number of short lines that could be passed on now."""
        return self._allowance.room()

    def pass_on(self, line: OutputLine, size: int) -> bool:
        """Pass a line on, and return true. Return false if the allowance has no room for ``size`` bytes."""
        if not self._allowance.take(size):
            return False
        self._emit(line)
        return True

    def charge(self, size: int) -> None:
        """Charge bytes that were parsed and are no record, so that the work on such bytes is bounded, too."""
        self._allowance.charge(size)

    def count_cut(self) -> None:
        """Count a line that was passed on without its end."""
        self.dropped += 1

    def drop(self, lines: int, size: int) -> None:
        """Count lines that are not passed on."""
        if lines == 0:
            return
        self.dropped += lines
        self._loss = Loss(self._loss.lines + lines, self._loss.size + size)
        if self._notice is None:
            delay = max(_FIRST_NOTICE, self._noticed_at + _NOTICE_EVERY - self._loop.time())
            self._notice = self._loop.call_later(delay, self._emit_loss)

    def finish(self) -> None:
        """Log the loss since the last notice, and drop ``emit``: its owner may own this outlet, which makes a cycle."""
        if self._notice is not None:
            self._notice.cancel()
            self._emit_loss()
        self._emit = _pass_nothing_on

    def _emit_loss(self) -> None:
        loss, self._loss = self._loss, Loss(0, 0)
        self._notice = None
        self._noticed_at = self._loop.time()
        self._emit(loss)


def _pass_nothing_on(line: OutputLine | Loss) -> None:
    """Do nothing, in place of ``emit`` after the end of the process."""


class _Capture:
    """Reader of an fd on the event loop, until its end."""

    _chunk = 64 * 1024
    _most_reads = 64
    """Most reads after the death of the writer. So many chunks are more than a pipe holds."""

    def __init__(self, fd: int, outlet: Outlet) -> None:
        self._fd = fd
        self._outlet = outlet
        self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._on_readable)

    def finish(self) -> None:
        """Read the bytes that are there, and stop. The writer is dead. The owner of the fd closes it."""
        # Bounded: a grandchild that still lives may go on writing.
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
        return os.read(self._fd, self._chunk)

    def _take(self, data: bytes) -> None:
        raise AssertionError("a subclass handles the data")


class StreamCapture(_Capture):
    """Reader of stdout or stderr, by line. Text without a newline is shown after a silence, or every few seconds."""

    def __init__(self, fd: int, stream: str, outlet: Outlet) -> None:
        super().__init__(fd, outlet)
        self._stream = stream
        self._level = logging.WARNING if stream == "stderr" else logging.INFO
        self._lines = StreamLines()
        self._is_finishing = False
        self._preview: asyncio.TimerHandle | None = None
        self._read_at = 0.0
        self._shown_at = -_STATE_EVERY
        self._shown: Line | None = None
        """Line without an end that was shown last."""
        self._waits = 0

    def finish(self) -> None:
        self._is_finishing = True
        self._work_off()
        super().finish()

    def _stop(self) -> None:
        super()._stop()
        if self._preview is not None:
            self._preview.cancel()
            self._preview = None
        last = self._lines.take_last()
        if last is not None:
            self._pass_on(last)

    def _on_readable(self) -> bool:
        # The rest of the last chunk comes first, and a turn for it is scheduled.
        return self._lines.has_backlog or super()._on_readable()

    def _take(self, data: bytes) -> None:
        assert self._loop is not None
        self._read_at = self._loop.time()
        self._lines.feed(data)
        self._work_off()

    def _work_off(self) -> None:
        """Pass on some lines, and leave the rest to a later turn: other jobs need the event loop, too."""
        self._pass_some_on()
        while self._is_finishing and self._lines.has_backlog:
            self._pass_some_on()
        if self._loop is None:
            return
        if self._lines.has_backlog:
            self._loop.call_soon(self._work_off)
        self._arm()

    def _pass_some_on(self) -> None:
        room = min(self._outlet.room(), _LINES_A_TURN)
        for line in self._lines.take(room) if room else ():
            self._pass_on(line)
        if self._lines.has_backlog and not self._outlet.room():
            self._outlet.drop(*self._lines.skip())

    def _pass_on(self, line: Line) -> None:
        if line.is_state:
            if self._may_show_state():
                self._show_state(line)
            return
        self._shown = None
        output = OutputLine(line.text, self._level, self._stream)
        if not self._outlet.pass_on(output, _written(line.text)):
            self._outlet.drop(1, len(line.text) + line.missing + 1)
        elif line.missing:
            self._outlet.count_cut()

    # --- text without a line end -----------------------------------------------------------------

    def _may_show_state(self) -> bool:
        return self._loop is not None and self._loop.time() >= self._shown_at + _STATE_EVERY

    def _arm(self) -> None:
        """Set the timer that shows a state, or a line without an end."""
        if self._preview is not None or self._loop is None:
            return
        due = self._shown_at + _STATE_EVERY - self._loop.time()
        if self._lines.state is not None:
            self._preview = self._loop.call_later(max(due, 0.0), self._show_unfinished)
        elif self._unshown() is not None:
            self._preview = self._loop.call_later(max(due, _STANDS), self._show_unfinished)

    def _show_unfinished(self) -> None:
        assert self._loop is not None
        self._preview = None
        state = self._lines.take_state()
        if state is not None:
            self._show_state(state)
        elif self._is_being_written():
            self._waits += 1
        elif (line := self._unshown()) is not None:
            self._show_state(line)
            self._shown = line
        self._arm()

    def _unshown(self) -> Line | None:
        """Return the line without an end, unless it was shown. In a cut line, only the count of bytes changes."""
        line, shown = self._lines.unfinished(), self._shown
        if line is None or shown is None:
            return line
        return None if line == shown or (line.missing and shown.missing) else line

    def _is_being_written(self) -> bool:
        assert self._loop is not None
        return self._waits < _MOST_WAITS and self._loop.time() < self._read_at + _STANDS

    def _show_state(self, line: Line) -> None:
        """Show text that may be overwritten or may go on. If there is no room, the text does not count as a loss."""
        assert self._loop is not None
        self._shown_at, self._waits = self._loop.time(), 0
        text = f"{line.text} …"
        self._outlet.pass_on(OutputLine(text, self._level, self._stream), _written(text))


class LogCapture(_Capture):
    """Reader of log records, one in each packet. ``on_nonsense`` is called when fds come with a packet."""

    _chunk = MAX_LOG_PACKET
    _most_reads = 4096  # each read returns one record, and a socket's buffer holds hundreds

    def __init__(self, fd: int, outlet: Outlet, on_nonsense: Callable[[str], object]) -> None:
        super().__init__(fd, outlet)
        self._on_nonsense = on_nonsense

    def _read(self) -> bytes:
        data, has_fds = passed_fds.receive(self._fd, self._chunk)
        if has_fds:
            self._on_nonsense(passed_fds.COMPLAINT)
            return b""  # read no more: what waits is closed with the socket, and not here
        return data

    def _take(self, data: bytes) -> None:
        if not self._pass_on(data):
            self._outlet.drop(1, len(data))

    def _pass_on(self, data: bytes) -> bool:
        if not self._outlet.room():
            return False
        try:
            values = json.loads(data)
            line = _parse(values)
            size = len(data) if data.isascii() else len(json.dumps(values))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            # Not a record. The next packet can still be a valid one, because packets keep their bounds.
            self._outlet.charge(len(data))
            return False
        return self._outlet.pass_on(line, size)


def _parse(values: dict[str, Any]) -> OutputLine:
    error = values["error"]
    return OutputLine(
        _text(values["message"]),
        min(max(int(values["level"]), 0), _HIGHEST_LEVEL),
        "log",
        _text(values["logger"]),
        None if error is None else _text(error),
        {_text(name): _field(value) for name, value in dict(values["fields"]).items()},
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where a child sends text")
    return value if value.isascii() else clean(value)


def _field(value: Any) -> object:
    """Return a plain value. Raises ``TypeError`` for any other value.

    A child sends only plain values. The text of nested lists would take time by the square of their depth.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _text(value)


def _written(text: str) -> int:
    """Return the number of bytes of a text in the log, where a control character takes up to six bytes."""
    return len(text) if text.isascii() and text.isprintable() else len(json.dumps(text))
