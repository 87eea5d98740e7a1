"""What an app logs with, led into the channel to the supervisor.

What writes to this process's stdout or stderr would arrive there, too, but line by line, and without its level. So
whatever can be told to be a log that goes there is led into the channel instead: each record once, with its level,
and its traceback in one piece. What the app has set up otherwise (files, a service, a format of its own printed) is
left alone. Of structlog and loguru only public functions are used, and only if the app has imported them.
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
"""The id of the sink with which loguru begins; the app's own have others."""


class AppLogging:
    """Follows the app's logging: while the app is imported, after the fork, and after prewarm."""

    def __init__(self, channel: LogChannel) -> None:
        self._channel = channel
        self._default: FrameHandler | None = None

    @contextmanager
    def while_loading(self) -> Iterator[None]:
        """Lead each handler into the channel as soon as it prints; so, too, records that find no handler.

        The root logger gets no handler: ``logging.basicConfig()`` does nothing where there is one.
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
        """Have what was led into the channel sent to another fd."""
        self._channel.move(fd, counter)

    def install(self, level: int | None = None) -> None:
        """Have what reaches the root logger sent, unless the app has set up logging itself.

        ``level`` is the level of the root logger, if an integration knows it.
        """
        root = logging.getLogger()
        if level is not None:
            root.setLevel(level)
        if not root.handlers:
            self._default = _Default(self._channel, self.settle)
            root.addHandler(self._default)
            if level is None and root.level == logging.WARNING:  # the default, so nobody's decision
                root.setLevel(logging.INFO)
        self.settle()

    def settle(self) -> None:
        """Lead into the channel what would be printed. May be called whenever something was set up."""
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
            return  # the app has sinks of its own, or this was done before
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
        # Without this function it is half imported, or something else by that name.
        if structlog is None or getattr(structlog, "is_configured", lambda: True)():
            return
        processors = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _as_arguments]
        structlog.configure(processors=processors, logger_factory=lambda *names: _StructlogSink(self._channel, names))


class _Default(FrameHandler):
    """Stands at the root until the app puts a handler there that prints: then that one is led into the channel."""

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
    """Takes records that find no handler, from the level at which Python's own last resort does."""

    def __init__(self, channel: LogChannel) -> None:
        super().__init__(channel)
        self.setLevel(logging.WARNING)


class _LedHandler(FrameHandler):
    """Sends what another handler would have printed, as that one's formatter has it."""

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
            super().emit(record)  # which says what is wrong with it
            return
        self._channel.send(record.levelno, record.name, text, at=record.created)


def _lead(handler: logging.Handler, channel: LogChannel) -> None:
    """The handler stays where it is, with its level and its filters; only where it writes is another place."""
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
    """A format of loguru's: the traceback travels apart, so it is not appended."""
    return "{message}"


def _as_arguments(logger: Any, method: str, event: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """structlog's last processor: what it returns are the arguments of the sink's method."""
    return (), event


class _StructlogSink:
    """What structlog's own loggers write to."""

    def __init__(self, channel: LogChannel, names: tuple[Any, ...]) -> None:
        self._channel = channel
        self._name = str(names[0]) if names else "structlog"

    def msg(self, **event: Any) -> None:
        level = logging.getLevelNamesMapping().get(str(event.pop("level", "info")).upper(), logging.INFO)
        message, error = event.pop("event", ""), _error_of(event.pop("exc_info", None))
        self._channel.send(level, self._name, str(message), error=error, fields=event.items())

    log = debug = info = warn = warning = error = exception = err = fatal = critical = failure = msg


def _error_of(exc_info: Any) -> BaseException | None:
    """What structlog takes for an exception: one, a triple, or anything true for the one that is handled now."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if len(exc_info) == 3 else None
    return sys.exception() if exc_info else None
