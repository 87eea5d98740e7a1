"""Log of the worker on stderr: one line for each event, for people or as JSON.

Most texts have parts from jobs, callers and apps. So this module makes each line harmless: no text can forge a line,
move a terminal's cursor, or break the JSON.
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

from ..clean_text import clean, cut_end, name_of
from ..log_fields import log_fields
from ..settings import LogOptions
from .log_writer import LogWriter
from .text import harmless, one_line

__all__ = ["HumanFormatter", "JsonFormatter", "logging_to_stderr"]

_FIELDS = (
    "process_id",
    "job_pid",
    "job_id",
    "generation",
    "trace_id",
    "labels",
    "event",
    "stream",
    "app_logger",
    "fields",
)
_ORIGIN = (("process_id", ""), ("generation", "g"), ("job_id", ""), ("trace_id", "trace="))
_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_LONGEST_TEXT = 64 * 1024
"""Most characters of a text: more than the largest record of a job has, with its traceback."""
_LONGEST_LABEL, _LONGEST_FIELDS = 48, 2000
"""Most characters of a job's first label, and of a record's fields, in a line for people."""
_PLAIN_LABEL = re.compile(r"[\w.:~@+-]+")
_DEEPEST = 8
"""Levels of nesting in the fields of a line. Deeper values are shown as text."""

_logger = logging.getLogger("greenroom")


class HumanFormatter(logging.Formatter):
    """Formatter for people: time, level, ``[process generation job label]``, text, and the record's own fields.

    Ids and labels that a record lacks are left out. The fields come from the app.
    """

    def __init__(self, *, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{one_line(record.levelname):<7}"
        if self._coloured and record.levelname in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelname]}m{level}\x1b[0m"
        # Indented, so that no part of a text can look like a line from elsewhere.
        first, *others = _text(record).split("\n")
        text = harmless("\n".join([f"{first}{_fields(record)}", *others])).replace("\n", "\n    ")
        return f"{clock}.{int(record.msecs):03d} {level} {_origin(record)}{text}"


class JsonFormatter(logging.Formatter):
    """Formatter for programs: one JSON object in each line. Ids that a record lacks are left out."""

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
    """Write all log records of this process to stderr."""
    coloured = sys.stderr.isatty()
    handler = LogWriter(sys.stderr.fileno())
    handler.setFormatter(JsonFormatter() if options.log_format == "json" else HumanFormatter(coloured=coloured))
    logging.raiseExceptions = False  # logging would write its own errors to the stderr that may have failed
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # for libraries
    logging.getLogger("greenroom").setLevel(options.log_level.upper())
    try:
        with _python_logs_too():
            yield
    finally:
        root.removeHandler(handler)
        handler.close()


@contextmanager
def _python_logs_too() -> Iterator[None]:
    """Log the texts that Python itself would print to stderr: warnings, and errors that no code can catch."""
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
    text = error.err_msg or "error that no code can catch, in"
    _logger.error("%s: %r", text, error.object, exc_info=exc_info, extra=log_fields("internal_error"))


def _log_thread_error(error: Any) -> None:
    name = error.thread.name if error.thread is not None else "?"
    exc_info = (error.exc_type, error.exc_value, error.exc_traceback)
    _logger.error("thread %s failed", name, exc_info=exc_info, extra=log_fields("internal_error", thread=name))


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
    """Return the label by which people know the job, such as its room. Lines in JSON have all labels."""
    for name, text in (getattr(record, "labels", None) or {}).items():
        shown = text[:_LONGEST_LABEL] + ("…" if len(text) > _LONGEST_LABEL else "")
        # The text comes from a stranger, and must not look like the end of the brackets.
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
    """Return data that strict JSON can hold: no NaN, no lone surrogates, and only texts as keys."""
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
