"""Warning about events that may come a thousand times per second."""

from __future__ import annotations

import asyncio
import logging

from ...log_fields import log_fields

__all__ = ["ThrottledWarning"]

_EVERY = 60.0

_logger = logging.getLogger("greenroom")


class ThrottledWarning:
    """Warning of one kind, logged at once, and then at most once in ``every`` seconds with a count.

    ``close`` logs the warnings that are counted and not logged yet.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, event: str, every: float = _EVERY) -> None:
        self._loop = loop
        self._event = event
        self._every = every
        self._count = 0
        self._latest: tuple[str, tuple[object, ...], dict[str, object]] = ("", (), {})
        self._timer: asyncio.TimerHandle | None = None

    def warn(self, text: str, *values: object, **fields: object) -> None:
        """Log or count a warning. ``fields`` are fields of the log record."""
        self._count += 1
        self._latest = (text, values, fields)
        if self._timer is None:
            self._log()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._count:
            self._write()

    def _log(self) -> None:
        self._write()
        self._timer = self._loop.call_later(self._every, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        if self._count:
            self._log()

    def _write(self) -> None:
        text, values, fields = self._latest
        count, self._count = self._count, 0
        if count > 1:
            text, values = f"{text} (%d times)", (*values, count)
        _logger.warning(text, *values, extra=log_fields(self._event, count=count, **fields))
