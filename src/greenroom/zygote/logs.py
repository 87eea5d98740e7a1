"""Log records of a child as plain data on a bounded channel that drops rather than blocks."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ..errors import traceback_of
from ..texts import clean, cut_end, cut_start, name_of
from ..wire import plain_json
from ..wire.frames import MAX_LOG_PACKET

__all__ = ["DropCount", "DropCounter", "FrameHandler", "LogChannel"]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has, and what formatters add: the rest are fields that the app has given to it."""
_STRUCTLOG = frozenset({"_logger", "_name", "_from_structlog", "_record"})
"""What structlog puts into a record for its own formatter."""
_MOST_FIELDS, _LONGEST_NAME, _LONGEST_FIELD = 32, 64, 512

_MAX_TEXT = 16 * 1024
_SHARES = (1, 2, 4, 8, 16)
"""By which all bounds are divided until the record fits: a character takes up to six bytes."""
_LONGEST_NUMBER = 64
"""Bits of a whole number that is sent as one; a longer one is sent as text."""
_MORE = "…"
"""The name of the field that says how many more there were."""


class DropCounter(Protocol):
    """Where records that could not be sent, or were sent cut, are counted."""

    def count_dropped(self) -> None: ...


class DropCount:
    """Counts for a process that has no heartbeat page."""

    def __init__(self) -> None:
        self.dropped = 0

    def count_dropped(self) -> None:
        self.dropped += 1


class LogChannel:
    """Sends each record as one packet; what does not fit into the socket's buffer is counted instead."""

    def __init__(self, fd: int, counter: DropCounter, patience: float = 0.0) -> None:
        """``patience``: seconds for which one record waits for room."""
        self._sock = socket.socket(fileno=fd)
        self._sock.settimeout(patience)
        self._counter = counter

    def move(self, fd: int, counter: DropCounter) -> None:
        """Send to another fd from now on, and never wait. The former one is closed in this process."""
        self._sock.close()
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._counter = counter

    def send(
        self,
        level: int,
        logger: str,
        message: str,
        *,
        at: float | None = None,
        error: BaseException | None = None,
        fields: Iterable[tuple[object, object]] = (),
    ) -> None:
        """Send one record. Never raises, and waits for ``patience`` at most. A record that is cut is counted, too."""
        try:
            traceback = None if error is None else traceback_of(error)
            texts = (logger, message, traceback, list(fields))
            packet, is_whole = _packet(time.time() if at is None else at, level, *texts)
            self._sock.send(packet)
        except Exception:
            # Full: the job must not wait for its log. Or the supervisor has gone; or this cannot be told.
            is_whole = False
        if not is_whole:
            self._counter.count_dropped()


class FrameHandler(logging.Handler):
    """Sends what reaches it."""

    def __init__(self, channel: LogChannel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        message, given = _message(record), vars(record).items()
        fields = [(name, value) for name, value in given if name not in _OWN and name not in _STRUCTLOG]
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(record.msg, dict) and "event" in record.msg:  # structlog's, on its way to a formatter of its own
            message, more, error = _of_structlog(record.msg, error)
            fields += more
        self._channel.send(record.levelno, record.name, message, at=record.created, error=error, fields=fields)


def _of_structlog(
    event: Mapping[str, Any], error: BaseException | None
) -> tuple[str, list[tuple[str, Any]], BaseException | None]:
    raised = event.get("exc_info")
    if isinstance(raised, tuple):
        raised = raised[1]
    ours = ("event", "exc_info", "level", "logger", "timestamp")
    fields = [(name, value) for name, value in event.items() if name not in ours]
    return _shown(event["event"]), fields, raised if isinstance(raised, BaseException) else error


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # a format string that does not fit, or an argument whose __str__ raises
        return f"{_unformatted(record.msg)} (not formatted: {type(error).__name__})"


def _unformatted(message: object) -> str:
    return message if isinstance(message, str) else f"<{type(message).__name__}>"


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}, not formatted: {type(error).__name__}>"


# --- records as packets --------------------------------------------------------------------------


def _packet(
    at: float, level: int, logger: str, message: str, traceback: str | None, fields: list[tuple[object, object]]
) -> tuple[bytes, bool]:
    """Return a record as bytes, and whether it is whole. What is cut carries a mark."""
    for share in _SHARES:
        cutter = _Cutter(share)
        plain = {
            "time": at,
            "level": level,
            "logger": cutter.end(logger, _LONGEST_FIELD),
            "message": cutter.end(message, _MAX_TEXT),
            "error": None if traceback is None else cutter.start(traceback, _MAX_TEXT),
            "fields": cutter.fields(fields),
        }
        packet = plain_json.encoded_for_people(plain).encode("utf-8")
        if len(packet) <= MAX_LOG_PACKET:
            return packet, not cutter.has_cut
    raise ValueError(f"a record of {len(packet)} bytes does not fit into a packet")


class _Cutter:
    """Cuts texts to a share of their bounds, and notes whether it had to."""

    def __init__(self, share: int) -> None:
        self._share = share
        self.has_cut = False

    def end(self, text: str, limit: int) -> str:
        return clean(self._noted(text, cut_end(text, limit // self._share)))

    def start(self, text: str, limit: int) -> str:
        return clean(self._noted(text, cut_start(text, limit // self._share)))

    def _noted(self, text: str, cut: str) -> str:
        self.has_cut |= cut is not text
        return cut

    def fields(self, given: Iterable[tuple[object, object]]) -> dict[str, object]:
        """Take the fields that the app has given: by ``extra=``, by a filter, or bound to a logger."""
        kept: dict[str, object] = {}
        left_out = 0
        for name, value in given:
            shown = self.end(_shown(name), _LONGEST_NAME)
            # Two long names may be alike once they are cut: neither takes the other's place.
            if len(kept) < _MOST_FIELDS and shown not in kept:
                kept[shown] = self._field(value)
            else:
                left_out += 1
        if left_out:
            self.has_cut = True
            kept[_MORE] = f"{left_out} fields more"
        return kept

    def _field(self, value: Any) -> object:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else name_of(value)
        if isinstance(value, int) and int.bit_length(value) <= _LONGEST_NUMBER:
            return int.__index__(value)
        return self.end(_shown(value), _LONGEST_FIELD)
