"""The worker's log: one line for each event on stderr, for people or as JSON.

Sessions, callers and apps have a part in most texts. So each line is made harmless here, in one place: no text forges
a line, moves a terminal's cursor, or breaks the JSON.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..settings import LogOptions
from ..texts import clean, cut_end, name_of
from .log_writer import LogWriter
from .text import harmless, one_line

__all__ = ["HumanFormatter", "JsonFormatter", "logging_to_stderr"]

_FIELDS = ("process_id", "job_pid", "job_id", "generation", "labels", "event", "stream", "app_logger", "fields")
_ORIGIN = (("process_id", ""), ("generation", "g"), ("job_id", ""))
_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_LONGEST_TEXT = 64 * 1024
"""Characters: more than the largest record of a session, with its traceback."""
_LONGEST_LABEL, _LONGEST_FIELDS = 48, 2000
"""Characters of a job's first label, and of a record's fields, in a line for people."""
_PLAIN_LABEL = re.compile(r"[\w.:~@+-]+")
_DEEPEST = 8
"""Levels of nesting in the fields of a line; below them stands the text of a value."""

_logger = logging.getLogger("greenroom")


class HumanFormatter(logging.Formatter):
    """Time, level, ``[process generation session label]`` as far as there are these, the text, and the fields that
    the app has given to the record."""

    def __init__(self, *, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{one_line(record.levelname):<7}"
        if self._coloured and record.levelname in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelname]}m{level}\x1b[0m"
        # Indented, so that no text can pass for a line of another origin.
        first, *others = _text(record).split("\n")
        text = harmless("\n".join([f"{first}{_fields(record)}", *others])).replace("\n", "\n    ")
        return f"{clock}.{int(record.msecs):03d} {level} {_origin(record)}{text}"


class JsonFormatter(logging.Formatter):
    """One object on one line; ids are left out where there are none."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        shown = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _text(record),
        }
        fields = {name: getattr(record, name, None) for name in _FIELDS}
        given = {name: value for name, value in fields.items() if value not in (None, "", {})}
        plain = _plain(shown | given | getattr(record, "details", {}))
        return json.dumps(plain, allow_nan=False).replace("\x7f", "\\u007f")


@contextmanager
def logging_to_stderr(options: LogOptions) -> Iterator[None]:
    """Have everything that is logged in this process written to stderr."""
    coloured = sys.stderr.isatty()
    handler = LogWriter(sys.stderr.fileno())
    handler.setFormatter(JsonFormatter() if options.log_format == "json" else HumanFormatter(coloured=coloured))
    logging.raiseExceptions = False  # it would write to the same stderr, which may be what fails
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # of libraries, what matters
    logging.getLogger("greenroom").setLevel(options.log_level.upper())
    try:
        with _python_logs_too():
            yield
    finally:
        root.removeHandler(handler)
        handler.close()


@contextmanager
def _python_logs_too() -> Iterator[None]:
    """Log what Python itself would print to stderr: warnings, and errors that nothing can catch."""
    hooks = sys.unraisablehook, threading.excepthook
    logging.captureWarnings(True)
    sys.unraisablehook, threading.excepthook = _log_unraisable, _log_thread_error
    try:
        yield
    finally:
        logging.captureWarnings(False)
        sys.unraisablehook, threading.excepthook = hooks


def _log_unraisable(error: Any) -> None:
    exc_info = (error.exc_type, error.exc_value, error.exc_traceback)
    _logger.error("%s: %r", error.err_msg or "an error that nothing can catch, in", error.object, exc_info=exc_info)


def _log_thread_error(error: Any) -> None:
    name = error.thread.name if error.thread is not None else "?"
    exc_info = (error.exc_type, error.exc_value, error.exc_traceback)
    _logger.error("thread %s failed", name, exc_info=exc_info)


def _text(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
    return cut_end(text.rstrip("\n"), _LONGEST_TEXT)


def _origin(record: logging.LogRecord) -> str:
    ids = {name: getattr(record, name, None) for name, _ in _ORIGIN}
    if ids["process_id"] is None and ids["job_id"] is None:
        return ""
    shown = " ".join(f"{prefix}{ids[name]}" for name, prefix in _ORIGIN if ids[name] is not None)
    return f"[{one_line(shown)}{_first_label(record)}] "


def _first_label(record: logging.LogRecord) -> str:
    """By which people know the job: the room, say. JSON has all labels."""
    for name, text in (getattr(record, "labels", None) or {}).items():
        shown = text[:_LONGEST_LABEL] + ("…" if len(text) > _LONGEST_LABEL else "")
        # A stranger's text, which must not look like the end of the brackets.
        is_plain = _PLAIN_LABEL.fullmatch(shown) is not None
        return one_line(f" {name}={shown if is_plain else json.dumps(shown, ensure_ascii=False)}")
    return ""


def _fields(record: logging.LogRecord) -> str:
    fields = getattr(record, "fields", None)
    if not fields:
        return ""
    text = json.dumps(_plain(fields), ensure_ascii=False, allow_nan=False)
    return f" {cut_end(text, _LONGEST_FIELDS)}"


def _plain(value: Any, depth: int = 0) -> Any:
    """Return data that strict JSON holds: no NaN, no lone surrogate, keys that are text."""
    if isinstance(value, str):
        return clean(cut_end(value, _LONGEST_TEXT))
    if isinstance(value, float):
        return value if math.isfinite(value) else name_of(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, dict) and depth < _DEEPEST:
        return {clean(str(key)): _plain(one, depth + 1) for key, one in value.items()}
    if isinstance(value, (list, tuple)) and depth < _DEEPEST:
        return [_plain(one, depth + 1) for one in value]
    return clean(cut_end(str(value), _LONGEST_TEXT))
