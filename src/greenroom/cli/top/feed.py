"""Updates of a worker's picture, also after a loss of the connection or a restart of the worker."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing

from ...backoff import backoff
from ..client import Client, Refused, Unreachable
from ..printing import Failure
from .watched import Watched

__all__ = ["Feed", "note_loss"]

_FIRST_WAIT = 0.25
_LONGEST_WAIT = 4.0


class Feed:
    """Reader of a worker's events. The reader updates the picture, and calls ``wake`` after each change.

    ``is_only`` is true if the view shows no other worker.
    """

    def __init__(self, client: Client, watched: Watched, wake: Callable[[], None], *, is_only: bool) -> None:
        self._client = client
        self._watched = watched
        self._wake = wake
        self._is_only = is_only
        self._failures = 0
        """Number of failures in a row."""

    async def run(self) -> None:
        """Update the picture until cancelled.

        Raises :class:`Refused` if the only worker does not accept the token. Of several, that worker counts as lost.
        """
        while True:
            try:
                await self._follow()
            except Failure as error:
                if self._is_only and isinstance(error, Refused) and error.status == 401:
                    raise
                note_loss(self._watched, error)
            else:
                self._watched.lose("", time.time())
            self._wake()
            self._failures += 1
            chance = random.random()
            await asyncio.sleep(backoff(self._failures, first=_FIRST_WAIT, longest=_LONGEST_WAIT, chance=chance))

    async def _follow(self) -> None:
        async with aclosing(self._client.events()) as events:
            async for name, data in events:
                self._watched.hear(name, data, time.time())
                self._failures = 0
                self._wake()


def note_loss(watched: Watched, failure: Failure) -> None:
    """Note that a worker cannot be watched, and the cause."""
    cause = failure.cause if isinstance(failure, Unreachable) else str(failure)
    watched.lose(cause, time.time(), is_refusal=isinstance(failure, Refused))
