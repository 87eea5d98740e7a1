"""Log records of a child as plain data on a bounded channel that drops rather than blocks."""

from __future__ import annotations

import json
import logging
import socket
from itertools import islice
from typing import Any

from ..errors import ErrorInfo
from ..system.heartbeat import HeartbeatPage

__all__ = ["FrameHandler", "install"]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has, and what formatters add: the rest are fields that the app has given to it."""
_MOST_FIELDS, _LONGEST_NAME, _LONGEST_FIELD = 32, 64, 512

_MAX_TEXT = 16 * 1024  # bytes, of which a packet holds two: the reader takes 64 KiB at a time


class FrameHandler(logging.Handler):
    """Sends each record as one packet; what does not fit into the socket's buffer is counted instead."""

    def __init__(self, sock: socket.socket, page: HeartbeatPage) -> None:
        super().__init__()
        self._sock = sock
        self._page = page

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._sock.send(json.dumps(_plain(record), ensure_ascii=False).encode("utf-8"))
        except Exception:
            # Full: the job must not wait for its log. Or the supervisor has gone; or this cannot be told.
            self._page.count_dropped()


def install(fd: int, page: HeartbeatPage) -> None:
    """Send what reaches the root logger to the supervisor, unless the app has set up logging itself.

    An app with handlers of its own goes on as it is: what they write is captured with stderr.
    """
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    root = logging.getLogger()
    if root.handlers:
        return
    root.addHandler(FrameHandler(sock, page))
    if root.level == logging.WARNING:  # the default, so nobody's decision
        root.setLevel(logging.INFO)


def _plain(record: logging.LogRecord) -> dict[str, object]:
    return {
        "time": record.created,
        "level": record.levelno,
        "logger": _cut(record.name),
        "message": _message(record),
        "error": _error(record),
        "fields": _fields(record),
    }


def _message(record: logging.LogRecord) -> str:
    try:
        return _cut(record.getMessage())
    except Exception as error:  # a format string that does not fit, or an argument whose __str__ raises
        return f"{_unformatted(record.msg)} (not formatted: {type(error).__name__})"


def _unformatted(message: object) -> str:
    return _cut(message) if isinstance(message, str) else f"<{type(message).__name__}>"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What was given by ``extra=`` or by a filter."""
    given = ((name, value) for name, value in vars(record).items() if name not in _OWN)
    return {_cut(str(name))[:_LONGEST_NAME]: _field(value) for name, value in islice(given, _MOST_FIELDS)}


def _field(value: Any) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    try:
        return _cut(str(value)[:_LONGEST_FIELD])
    except Exception as error:
        return f"<{type(value).__name__}, not formatted: {type(error).__name__}>"


def _error(record: logging.LogRecord) -> str | None:
    if record.exc_info and record.exc_info[1] is not None:
        text = ErrorInfo.of(record.exc_info[1], limit=_MAX_TEXT).traceback
        return text.encode("utf-8")[-_MAX_TEXT:].decode("utf-8", "ignore")
    return None


def _cut(text: str) -> str:
    """No more of it than fits into a packet; and a lone surrogate has no UTF-8 form."""
    return text[:_MAX_TEXT].encode("utf-8", "backslashreplace")[:_MAX_TEXT].decode("utf-8", "ignore")
