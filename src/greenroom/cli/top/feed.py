"""Updates of a picture, also after a loss of the connection or a restart of the worker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing, suppress

from ...backoff import backoff
from ..client import Client, Refused, Unreachable
from .picture import Picture

__all__ = ["Feed"]

_FIRST_WAIT = 0.25
_LONGEST_WAIT = 4.0


class Feed:
    """Reader of a worker's events. The reader updates a picture, and calls ``wake`` after each change."""

    def __init__(self, client: Client, picture: Picture, wake: Callable[[], None]) -> None:
        self.is_lost = False
        """True if the worker does not answer, so that the picture shows an old state."""
        self._client = client
        self._picture = picture
        self._wake = wake
        self._failures = 0
        """Number of failures in a row."""

    async def run(self) -> None:
        """Update the picture until cancelled. Raises :class:`Refused` if the worker does not accept the token."""
        while True:
            try:
                with suppress(Unreachable):  # the view shows a lost connection until the worker answers again
                    await self._follow()
            except Refused as error:
                if error.status == 401:
                    raise
            self.is_lost = True
            self._wake()
            self._failures += 1
            chance = random.random()
            await asyncio.sleep(backoff(self._failures, first=_FIRST_WAIT, longest=_LONGEST_WAIT, chance=chance))

    async def _follow(self) -> None:
        async with aclosing(self._client.events()) as events:
            async for name, data in events:
                self._picture.apply(name, data)
                self.is_lost = False
                self._failures = 0
                self._wake()
