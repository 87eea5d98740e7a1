"""Logging of the app: its records are redirected into the channel to the supervisor.

Output to stdout or stderr would also reach the supervisor, but line by line, and without its level. So this module
finds the log handlers that print there, and redirects them into the channel. Each record arrives once, with its level,
and with its traceback in one piece. Other logging of the app stays unchanged: files, a service, or text that the app
formats and prints itself. Of structlog and loguru, only public functions are used, and only if the app has imported
these libraries.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .logs import DropCounter, FrameHandler, LogChannel

__all__ = ["AppLogging"]

_LOGURU_DEFAULT = 0
"""Id of loguru's first sink. Sinks of the app have other ids."""


class AppLogging:
    """Redirection of the app's logging: while the app is imported, after the fork, and after prewarm."""

    def __init__(self, channel: LogChannel) -> None:
        self._channel = channel
        self._default: FrameHandler | None = None

    @contextmanager
    def while_loading(self) -> Iterator[None]:
        """Redirect each handler at its first record that would be printed, and records that find no handler.

        The root logger gets no handler here: ``logging.basicConfig()`` does nothing if the root logger has one.
        """
        emit, last_resort = logging.StreamHandler.emit, logging.lastResort

        def lead_first(handler: logging.StreamHandler[Any], record: logging.LogRecord) -> None:
            if not _prints(handler):
                emit(handler, record)
                return
            _lead(handler, self._channel)
            handler.emit(record)

        logging.StreamHandler.emit = lead_first  # type: ignore[assignment]
        logging.lastResort = _LastResort(self._channel)
        try:
            yield
        finally:
            logging.StreamHandler.emit = emit  # type: ignore[method-assign]
            logging.lastResort = last_resort
            self.settle()

    def move(self, fd: int, counter: DropCounter) -> None:
        """Send redirected records to another fd from now on."""
        self._channel.move(fd, counter)

    def install(self, level: int | None = None) -> None:
        """Send the records of the root logger, unless the app has set up logging itself.

        ``level`` is the level of the root logger, if an integration knows it.
        """
        root = logging.getLogger()
        if level is not None:
            root.setLevel(level)
        if not root.handlers:
            self._default = _Default(self._channel, self.settle)
            root.addHandler(self._default)
            if level is None and root.level == logging.WARNING:  # Python's default, which no code has chosen
                root.setLevel(logging.INFO)
        self.settle()

    def settle(self) -> None:
        """Redirect all handlers that would print. May be called whenever the app may have set up logging."""
        for logger in _loggers():
            for handler in logger.handlers:
                if _prints(handler):
                    _lead(handler, self._channel)
        self._take_loguru()
        self._take_structlog()

    def _take_loguru(self) -> None:
        loguru = sys.modules.get("loguru")
        if loguru is None:
            return
        try:
            loguru.logger.remove(_LOGURU_DEFAULT)
        except ValueError:
            return  # the app has removed this sink, or this method was called before
        level = os.environ.get("LOGURU_LEVEL", "DEBUG")
        loguru.logger.add(self._on_loguru, level=level, format=_only_message)

    def _on_loguru(self, message: Any) -> None:
        record = message.record
        error = record["exception"].value if record["exception"] is not None else None
        at, fields = record["time"].timestamp(), record["extra"].items()
        level, name = record["level"].no, record["name"] or "loguru"
        self._channel.send(level, name, record["message"], at=at, error=error, fields=fields)

    def _take_structlog(self) -> None:
        structlog = sys.modules.get("structlog")
        # A module without this function is half imported, or is not structlog.
        if structlog is None or getattr(structlog, "is_configured", lambda: True)():
            return
        processors = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _as_arguments]
        structlog.configure(processors=processors, logger_factory=lambda *names: _StructlogSink(self._channel, names))


class _Default(FrameHandler):
    """Handler of the root logger, until the app adds a handler there that prints.

    Then the app's handler is redirected.
    """

    def __init__(self, channel: LogChannel, settle: Any) -> None:
        super().__init__(channel)
        self._settle = settle

    def emit(self, record: logging.LogRecord) -> None:
        others = [handler for handler in logging.getLogger().handlers if handler is not self]
        if any(map(_prints, others)):
            self._settle()
        if not any(map(_is_led, others)):
            super().emit(record)


class _LastResort(FrameHandler):
    """Handler for records that find no other handler, from the level of Python's own handler of last resort on."""

    def __init__(self, channel: LogChannel) -> None:
        super().__init__(channel)
        self.setLevel(logging.WARNING)


class _LedHandler(FrameHandler):
    """Handler that sends the text that another handler would have printed, from that handler's formatter."""

    def __init__(self, channel: LogChannel, handler: logging.Handler) -> None:
        super().__init__(channel)
        self._handler = handler

    def emit(self, record: logging.LogRecord) -> None:
        formatter = self._handler.formatter
        if formatter is None:
            super().emit(record)
            return
        try:
            text = formatter.format(record)
        except Exception:
            super().emit(record)  # the formatter has failed: sends the plain record
            return
        self._channel.send(record.levelno, record.name, text, at=record.created)


def _lead(handler: logging.Handler, channel: LogChannel) -> None:
    """Redirect a handler into the channel. The handler keeps its place, its level and its filters."""
    handler.emit = _LedHandler(channel, handler).emit  # type: ignore[method-assign]


def _is_led(handler: logging.Handler) -> bool:
    return isinstance(getattr(handler.emit, "__self__", None), _LedHandler)


def _prints(handler: logging.Handler) -> bool:
    if not isinstance(handler, logging.StreamHandler) or type(handler).emit is not logging.StreamHandler.emit:
        return False
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return not _is_led(handler) and any(handler.stream is stream for stream in streams)


def _loggers() -> Iterator[logging.Logger]:
    yield logging.getLogger()
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


def _only_message(record: Any) -> str:
    """Return a format for loguru without the traceback, which is sent separately."""
    return "{message}"


def _as_arguments(logger: Any, method: str, event: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments for the sink's method, as the last processor of structlog."""
    return (), event


class _StructlogSink:
    """Sink of structlog's own loggers."""

    def __init__(self, channel: LogChannel, names: tuple[Any, ...]) -> None:
        self._channel = channel
        self._name = str(names[0]) if names else "structlog"

    def msg(self, **event: Any) -> None:
        level = logging.getLevelNamesMapping().get(str(event.pop("level", "info")).upper(), logging.INFO)
        message, error = event.pop("event", ""), _error_of(event.pop("exc_info", None))
        self._channel.send(level, self._name, str(message), error=error, fields=event.items())

    log = debug = info = warn = warning = error = exception = err = fatal = critical = failure = msg


def _error_of(exc_info: Any) -> BaseException | None:
    """Return the exception that structlog finds in ``exc_info``.

    The value is an exception, a triple, or anything true for the exception that is being handled.
    """
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if len(exc_info) == 3 else None
    return sys.exception() if exc_info else None
