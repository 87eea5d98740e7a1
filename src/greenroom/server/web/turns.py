"""The time in each turn of the event loop in which clients' bytes are parsed.

One piece from each of a thousand connections takes seconds to parse, if it consists of the smallest chunks or
requests, and all of them can be ready in the same turn. The sessions' messages would wait for the last one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

__all__ = ["PIECE", "Turns", "Waiter"]

PIECE = 16 * 1024
"""Bytes that are read from a connection at a time; parsing as many takes up to 20 ms."""
SECONDS = 0.01
"""For parsing in one turn. The last piece may go beyond it."""
SMALL = 1024
"""Bytes. A piece up to this size, such as a health check, is parsed before larger ones."""


class Waiter(Protocol):
    """A connection whose piece waits."""

    def parse_piece(self) -> None:
        """Parse it, and read on. Called once for each :meth:`Turns.wait`."""


class Turns:
    """Shares the time among connections: small pieces first, and among equals the first that came."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float = SECONDS) -> None:
        self._loop = loop
        self._seconds = seconds
        self._spent = 0.0
        self._small: deque[Waiter] = deque()
        self._large: deque[Waiter] = deque()
        self._is_scheduled = False

    def now(self) -> bool:
        """Tell whether a piece may be parsed at once. Then :meth:`spend` the time that it took."""
        return self._spent < self._seconds and not self._small and not self._large

    def spend(self, begin: float) -> None:
        """Count the time since ``begin``, by ``time.perf_counter``."""
        self._spent += time.perf_counter() - begin
        self._schedule()

    def wait(self, waiter: Waiter, size: int) -> None:
        """Have a piece of so many bytes parsed in a later turn."""
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
            self._parse(self._large)  # one in each turn: small pieces must not keep them out for ever
        while self._large and self._spent < self._seconds:
            self._parse(self._large)
        if self._spent:
            self._schedule()  # for what still waits, or to begin a turn anew for what comes

    def _parse(self, queue: deque[Waiter]) -> None:
        begin = time.perf_counter()
        queue.popleft().parse_piece()
        self._spent += time.perf_counter() - begin
