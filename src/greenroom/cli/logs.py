"""The worker's log: one line for each event on stderr, for people or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..settings import LogOptions
from .log_writer import LogWriter

__all__ = ["logging_to_stderr"]

_FIELDS = ("process_id", "job_pid", "job_id", "generation", "event", "stream", "app_logger", "fields")
_ORIGIN = (("process_id", ""), ("generation", "g"), ("job_id", ""))
_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


class HumanFormatter(logging.Formatter):
    """Time, level, ``[process generation session]`` as far as there are these, and the text."""

    def __init__(self, *, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname:<7}"
        if self._coloured and record.levelname in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelname]}m{level}\x1b[0m"
        # Indented, so that no text can pass for a line of another origin.
        text = _text(record).replace("\n", "\n    ")
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
        return json.dumps(shown | given | getattr(record, "details", {}), default=str)


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
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _text(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
    return text.rstrip("\n")


def _origin(record: logging.LogRecord) -> str:
    ids = {name: getattr(record, name, None) for name, _ in _ORIGIN}
    if ids["process_id"] is None and ids["job_id"] is None:
        return ""
    return f"[{' '.join(f'{prefix}{ids[name]}' for name, prefix in _ORIGIN if ids[name] is not None)}] "
