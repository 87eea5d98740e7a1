"""Log records of a child, as plain data on a bounded channel that drops records rather than blocks."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ..clean_text import clean, cut_end, cut_start, name_of
from ..errors import traceback_of
from ..wire import plain_json
from ..wire.frames import MAX_LOG_PACKET

__all__ = ["DropCount", "DropCounter", "FrameHandler", "LogChannel"]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that each record has, and those that formatters add. All other attributes are fields of the app."""
_STRUCTLOG = frozenset({"_logger", "_name", "_from_structlog", "_record"})
"""Attributes that structlog puts into a record for its own formatter."""
_MOST_FIELDS, _LONGEST_NAME, _LONGEST_FIELD = 32, 64, 512

_MAX_TEXT = 16 * 1024
_SHARES = (1, 2, 4, 8, 16)
"""Divisors of all bounds, tried in turn until the record fits. A character takes up to six bytes."""
_LONGEST_NUMBER = 64
"""Largest size, in bits, of a whole number that is sent as one. A longer one is sent as text."""
_MORE = "…"
"""Name of the field that gives the number of omitted fields."""


class DropCounter(Protocol):
    """Counter of records that could not be sent, or were cut."""

    def count_dropped(self) -> None: ...


class DropCount:
    """Counter for a process that has no heartbeat page."""

    def __init__(self) -> None:
        self.dropped = 0

    def count_dropped(self) -> None:
        self.dropped += 1


class LogChannel:
    """Channel that sends each record as one packet. A record without room in the socket's buffer is counted instead."""

    def __init__(self, fd: int, counter: DropCounter, patience: float = 0.0) -> None:
        """Take over the fd. ``patience`` is the time, in seconds, that one record waits for room."""
        self._sock = socket.socket(fileno=fd)
        self._sock.settimeout(patience)
        self._counter = counter

    def move(self, fd: int, counter: DropCounter) -> None:
        """Send to another fd from now on, and never wait. Close the former fd in this process."""
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
        """Send one record.

        Never raises, and waits for ``patience`` seconds at most. A cut record is counted as well.
        """
        try:
            traceback = None if error is None else traceback_of(error)
            texts = (logger, message, traceback, list(fields))
            packet, is_whole = _packet(time.time() if at is None else at, level, *texts)
            self._sock.send(packet)
        except Exception:
            # The buffer is full, and the job must not wait for its log. Or the supervisor is gone, or the record cannot
            # be encoded.
            is_whole = False
        if not is_whole:
            self._counter.count_dropped()


class FrameHandler(logging.Handler):
    """Handler that sends its records into a channel."""

    def __init__(self, channel: LogChannel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        message, given = _message(record), vars(record).items()
        fields = [(name, value) for name, value in given if name not in _OWN and name not in _STRUCTLOG]
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(record.msg, dict) and "event" in record.msg:  # of structlog, for a formatter of its own
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
    except Exception as error:  # a wrong format string, or an argument whose __str__ raises
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
    """Return a record as bytes, and whether it is whole. A text that was cut has a mark.

    Raises ``ValueError`` if the record does not fit into a packet.
    """
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
    """Cutter of texts to a share of their bounds, which notes whether any text was cut."""

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
        """Return the fields that the app has given: by ``extra=``, by a filter, or bound to a logger."""
        kept: dict[str, object] = {}
        left_out = 0
        for name, value in given:
            shown = self.end(_shown(name), _LONGEST_NAME)
            # Two long names may be equal after the cut. Then the second one is omitted.
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
