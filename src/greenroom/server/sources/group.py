"""The sources of a worker, as one: what goes wrong in one of them holds up neither the others nor the worker's end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from ...errors import GreenroomError
from ..admission import Admission
from .base import Source

__all__ = ["SourceGroup"]

_logger = logging.getLogger("greenroom")

OPEN_TIMEOUT = 30.0
"""Seconds for each to open; those that keep on trying do so beside this."""
CLOSE_TIMEOUT = 12.0
"""Seconds for all to close: a little longer than they allow themselves, and within the margin that whoever stops the
worker allows for beside the drain."""


class SourceGroup:
    """Opens them one after the other, and closes them at the same time."""

    def __init__(
        self, sources: Iterable[Source], *, open_timeout: float = OPEN_TIMEOUT, close_timeout: float = CLOSE_TIMEOUT
    ) -> None:
        self._sources = list(sources)
        self._open_timeout = open_timeout
        self._close_timeout = close_timeout

    def status(self) -> dict[str, dict[str, Any]]:
        return {source.name: source.status() for source in self._sources}

    async def open(self, admission: Admission) -> None:
        """Raises :class:`GreenroomError` if a source does, and ``TimeoutError`` for one that takes too long."""
        for source in self._sources:
            try:
                async with asyncio.timeout(self._open_timeout) as limit:
                    await source.open(admission)
            except GreenroomError as error:
                raise GreenroomError(f"sessions from {source.name} cannot be taken: {error}") from error
            except TimeoutError:
                if not limit.expired():
                    raise
                late = f"no answer within {self._open_timeout:g} s"
                raise TimeoutError(f"sessions from {source.name} cannot be taken: {late}") from None

    def pause(self) -> None:
        for source in self._sources:
            try:
                source.pause()
            except Exception:
                _logger.exception("sessions from %s may still arrive, and are turned down", source.name)

    async def close(self) -> None:
        """Never raises: the worker has more to bring to an end."""
        await asyncio.gather(*map(self._close, self._sources))

    async def _close(self, source: Source) -> None:
        try:
            async with asyncio.timeout(self._close_timeout) as limit:
                await source.close()
        except Exception:
            if limit.expired():
                _logger.error("%s did not close within %g s, and is left", source.name, self._close_timeout)
            else:
                _logger.exception("%s was not closed in order", source.name)
