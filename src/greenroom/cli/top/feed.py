"""Keeps a picture up to date, through losses of the connection and restarts of the worker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing, suppress

from ..client import Client, Refused, Unreachable
from .picture import Picture

__all__ = ["Feed"]

_FIRST_WAIT = 0.25
_LONGEST_WAIT = 4.0


class Feed:
    """Follows a worker's events. ``wake`` is called whenever there is something new to show."""

    def __init__(self, client: Client, picture: Picture, wake: Callable[[], None]) -> None:
        self.is_lost = False
        """Whether what the picture shows is what was, because the worker does not answer."""
        self._client = client
        self._picture = picture
        self._wake = wake
        self._wait = _FIRST_WAIT

    async def run(self) -> None:
        """Until cancelled. Raises :class:`Refused` if the worker does not take the token (any more)."""
        while True:
            try:
                with suppress(Unreachable):  # shown as lost until it answers again
                    await self._follow()
            except Refused as error:
                if error.status == 401:
                    raise
            self.is_lost = True
            self._wake()
            await asyncio.sleep(self._wait * random.uniform(0.7, 1.3))
            self._wait = min(self._wait * 2, _LONGEST_WAIT)

    async def _follow(self) -> None:
        async with aclosing(self._client.events()) as events:
            async for name, data in events:
                self._picture.apply(name, data)
                self.is_lost = False
                self._wait = _FIRST_WAIT
                self._wake()
