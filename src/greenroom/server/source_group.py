"""Group of a worker's sources. When the worker ends, a source that fails delays neither the others nor the worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from ..errors import GreenroomError
from ..log_fields import log_fields
from ..pool import ProcessPool
from ..sources import Source
from .admission import Admission
from .source_host import SourceHost

__all__ = ["SourceGroup"]

_logger = logging.getLogger("greenroom")

OPEN_TIMEOUT = 30.0
"""Seconds that each source has to open. A source retries a connection to a server outside this time."""
CLOSE_TIMEOUT = 12.0
"""Seconds that all sources have to close. The limit of each source itself is a little shorter. The margin that service
managers leave after the drain is longer."""


class SourceGroup:
    """Group of sources that opens them one after the other, and closes them at the same time."""

    def __init__(
        self,
        sources: Iterable[Source],
        pool: ProcessPool,
        admission: Admission,
        *,
        open_timeout: float = OPEN_TIMEOUT,
        close_timeout: float = CLOSE_TIMEOUT,
    ) -> None:
        self._hosts = [(source, SourceHost(source.name, pool, admission)) for source in sources]
        self._open_timeout = open_timeout
        self._close_timeout = close_timeout
        for source, host in self._hosts:
            source.attach(host)

    @property
    def names(self) -> list[str]:
        return [source.name for source, _ in self._hosts]

    def status(self) -> dict[str, dict[str, Any]]:
        return {source.name: source.status() for source, _ in self._hosts}

    async def open(self) -> None:
        """Open the sources.

        Raises :class:`GreenroomError` if a source fails, and ``TimeoutError`` if a source is too slow.
        """
        for source, _ in self._hosts:
            try:
                async with asyncio.timeout(self._open_timeout) as limit:
                    await source.open()
            except GreenroomError as error:
                raise GreenroomError(f"source {source.name} cannot be opened: {error}") from error
            except TimeoutError:
                if not limit.expired():
                    raise
                late = f"no answer within {self._open_timeout:g} s"
                raise TimeoutError(f"source {source.name} cannot be opened: {late}") from None

    def pause(self) -> None:
        for source, _ in self._hosts:
            try:
                source.pause()
            except Exception:
                extra = log_fields("source_failed", source=source.name)
                _logger.exception("source %s was not paused. Sessions from it are rejected", source.name, extra=extra)

    async def close(self) -> None:
        """Close the sources. Never raises, because the worker must close further parts."""
        await asyncio.gather(*(self._close(source, host) for source, host in self._hosts))

    async def _close(self, source: Source, host: SourceHost) -> None:
        extra = log_fields("source_failed", source=source.name)
        try:
            async with asyncio.timeout(self._close_timeout) as limit:
                await source.close()
        except Exception:
            if limit.expired():
                text = "source %s did not close within %g s. The worker does not wait any longer"
                _logger.error(text, source.name, self._close_timeout, extra=extra)
            else:
                _logger.exception("source %s failed to close", source.name, extra=extra)
        await host.end_tasks()
