"""Log records of jobs in LiveKit's worker, under the logger names of the job's process, as LiveKit logs them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .executor import Executor

__all__ = ["OwnLoggers"]

_OF_JOBS = "greenroom.app"
_OURS = ("process_id", "job_pid", "generation", "labels", "stream", "app_logger", "fields")
"""Attributes that the pool adds to a job's record. LiveKit's worker has other names for these facts."""


class OwnLoggers(logging.Filter):
    """Filter that passes each record of a job on to the logger of its name. The record also gets LiveKit's fields."""

    def __init__(self, executor_of: Callable[[str], Executor | None]) -> None:
        super().__init__()
        self._executor_of = executor_of
        self._logger = logging.getLogger(_OF_JOBS)
        self._level_before = self._logger.level

    def install(self) -> None:
        self._level_before = self._logger.level
        self._logger.setLevel(1)  # the logger to which a record is passed on decides on its level
        self._logger.addFilter(self)

    def remove(self) -> None:
        self._logger.removeFilter(self)
        self._logger.setLevel(self._level_before)

    def filter(self, record: logging.LogRecord) -> bool:
        name = getattr(record, "app_logger", "")
        if not name:
            parent = self._logger.parent or self._logger  # a line that the job has printed has no logger
            return parent.isEnabledFor(record.levelno)
        kept = {key: value for key, value in vars(record).items() if key not in _OURS}
        logger = _nearest(name)
        if logger.isEnabledFor(record.levelno):
            logger.callHandlers(logging.makeLogRecord({**self._added(record), **kept, "name": name}))
        return False

    def _added(self, record: logging.LogRecord) -> dict[str, Any]:
        executor = self._executor_of(getattr(record, "job_id", None) or "")
        known = {} if executor is None else executor.logging_extra()
        # The process may log before the worker is notified of its start.
        return {**(getattr(record, "fields", None) or {}), **known, "pid": getattr(record, "job_pid", None)}


def _nearest(name: str) -> logging.Logger:
    """Return the logger of this name, or its nearest existing parent.

    No logger is made, so a job cannot fill this process with loggers.
    """
    while name:
        found = logging.Logger.manager.loggerDict.get(name)
        if isinstance(found, logging.Logger):
            return found
        name = name.rpartition(".")[0]
    return logging.getLogger()
