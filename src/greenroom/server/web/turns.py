"""Turns of the event loop, with a bound on the time in which clients' bytes are parsed.

Pieces from a thousand connections can be ready in the same turn. If they consist of the smallest chunks or requests,
their parsing takes seconds. Messages of the jobs would wait until the last piece is parsed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

__all__ = ["PIECE", "Turns", "Waiter"]

PIECE = 16 * 1024
"""Bytes that are read from a connection at a time. To parse them takes up to 20 ms."""
SECONDS = 0.01
"""Seconds for parsing in one turn. The last piece may take longer."""
SMALL = 1024
"""Bytes of the largest piece that is parsed before larger ones. A health check is smaller."""


class Waiter(Protocol):
    """Connection with a piece that waits."""

    def parse_piece(self) -> None:
        """Parse the piece, and read on. Called once for each :meth:`Turns.wait`."""


class Turns:
    """Division of the time among connections: small pieces first, and pieces of the same class in order of arrival."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float = SECONDS) -> None:
        self._loop = loop
        self._seconds = seconds
        self._spent = 0.0
        self._small: deque[Waiter] = deque()
        self._large: deque[Waiter] = deque()
        self._is_scheduled = False

    def now(self) -> bool:
        """Return true if a piece may be parsed at once. Then :meth:`spend` the time that this took."""
        return self._spent < self._seconds and not self._small and not self._large

    def spend(self, begin: float) -> None:
        """Count the time since ``begin``, a value of ``time.perf_counter``."""
        self._spent += time.perf_counter() - begin
        self._schedule()

    def wait(self, waiter: Waiter, size: int) -> None:
        """Have a piece of ``size`` bytes parsed in a later turn."""
        (self._small if size <= SMALL else self._large).append(waiter)
        self._schedule()

    def forget(self, waiter: Waiter) -> None:
        """Drop the piece of a lost connection. Harmless if none waits."""
        for queue in (self._small, self._large):
            if waiter in queue:
                queue.remove(waiter)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._is_scheduled = False
        self._spent = 0.0
        while self._small and self._spent < self._seconds:
            self._parse(self._small)
        if self._large:
            self._parse(self._large)  # at least one in each turn: small pieces must not delay large ones for ever
        while self._large and self._spent < self._seconds:
            self._parse(self._large)
        if self._spent:
            self._schedule()  # for the pieces that still wait, or to reset the time for new ones

    def _parse(self, queue: deque[Waiter]) -> None:
        begin = time.perf_counter()
        queue.popleft().parse_piece()
        self._spent += time.perf_counter() - begin
