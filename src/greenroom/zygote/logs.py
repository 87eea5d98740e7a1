"""Log records of a child as plain data on a bounded channel that drops rather than blocks."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from ..errors import ErrorInfo
from ..system.heartbeat import HeartbeatPage

__all__ = ["FrameHandler", "LogChannel"]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has, and what formatters add: the rest are fields that the app has given to it."""
_STRUCTLOG = frozenset({"_logger", "_name", "_from_structlog", "_record"})
"""What structlog puts into a record for its own formatter."""
_MOST_FIELDS, _LONGEST_NAME, _LONGEST_FIELD = 32, 64, 512

_MAX_TEXT = 16 * 1024  # bytes, of which a packet holds two: the reader takes 64 KiB at a time


class LogChannel:
    """Sends each record as one packet; what does not fit into the socket's buffer is counted instead."""

    def __init__(self, fd: int, page: HeartbeatPage) -> None:
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._page = page

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
        """Send one record. Never raises, and never waits."""
        try:
            plain = {
                "time": time.time() if at is None else at,
                "level": level,
                "logger": _cut(logger),
                "message": _cut(message),
                "error": _traceback(error),
                "fields": _plain(fields),
            }
            self._sock.send(json.dumps(plain, ensure_ascii=False).encode("utf-8"))
        except Exception:
            # Full: the job must not wait for its log. Or the supervisor has gone; or this cannot be told.
            self._page.count_dropped()


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


def _plain(fields: Iterable[tuple[object, object]]) -> dict[str, object]:
    """What the app has given to a record besides: by ``extra=``, by a filter, or bound to a logger."""
    return {_cut(_shown(name))[:_LONGEST_NAME]: _field(value) for name, value in islice(fields, _MOST_FIELDS)}


def _field(value: Any) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _cut(_shown(value)[:_LONGEST_FIELD])


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}, not formatted: {type(error).__name__}>"


def _traceback(error: BaseException | None) -> str | None:
    if error is None:
        return None
    text = ErrorInfo.of(error, limit=_MAX_TEXT).traceback
    return text.encode("utf-8")[-_MAX_TEXT:].decode("utf-8", "ignore")


def _cut(text: str) -> str:
    """No more of it than fits into a packet; and a lone surrogate has no UTF-8 form."""
    return text[:_MAX_TEXT].encode("utf-8", "backslashreplace")[:_MAX_TEXT].decode("utf-8", "ignore")
