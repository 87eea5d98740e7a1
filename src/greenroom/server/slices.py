"""Slices of long work, one in a turn of the event loop.

To list thousands of jobs at once would delay the messages of all jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["SIZE", "Slices"]

SIZE = 50
"""Items in a slice."""

T = TypeVar("T")
R = TypeVar("R")


class Slices:
    """Division of work on many items among turns of the event loop: in each turn, one slice of ``size`` items.

    All work that shares this object gets one slice in a turn together, in the order of its requests. So any number of
    clients hold up the event loop for no longer than one client.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._turn = asyncio.Lock()

    async def map(self, fn: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return ``fn`` of each item, in order. The items are those of the moment of the call."""
        kept, made = list(items), list[R]()
        for begin in range(0, len(kept), self._size):
            async with self._turn:
                made += [fn(item) for item in kept[begin : begin + self._size]]
                await asyncio.sleep(0)  # the lock is held until the next turn
        return made

    async def first(self, fn: Callable[[T], R | None], items: Iterable[T], most: int) -> list[R]:
        """Return what ``fn`` returns for the items, without ``None``, until there are ``most``."""
        kept, found = list(items), list[R]()
        for begin in range(0, len(kept), self._size):
            if len(found) >= most:
                break
            async with self._turn:
                made = [fn(item) for item in kept[begin : begin + self._size]]
                found += [each for each in made if each is not None]
                await asyncio.sleep(0)
        return found[:most]
