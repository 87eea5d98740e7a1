"""The heartbeat page: shared memory in which a child's event loop, and a thread beside it, tick.

The child counts, the supervisor compares; nothing is sent. A supervisor that was stopped itself
finds the count where the child has brought it, so it never takes a healthy child for a stalled one.
Each child has a page of its own in one memfd (so ``/dev/shm`` is not needed) and maps only that.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

__all__ = ["Beats", "HeartbeatFile", "HeartbeatPage"]

_SIZE = mmap.PAGESIZE
_WORD = struct.Struct("=Q")
_ALL = struct.Struct("=QQQ")


class Beats(NamedTuple):
    loop: int
    thread: int
    dropped: int
    """Log records that the child could not send."""


class HeartbeatPage:
    """The child's side: counts in its own page."""

    def __init__(self, fd: int, slot: int) -> None:
        self._memory = mmap.mmap(fd, _SIZE, offset=slot * _SIZE)
        self._counts = [0, 0, 0]

    def beat_loop(self) -> None:
        self._count(0)

    def beat_thread(self) -> None:
        self._count(1)

    def count_dropped(self) -> None:
        self._count(2)

    def _count(self, word: int) -> None:
        self._counts[word] += 1
        _WORD.pack_into(self._memory, word * _WORD.size, self._counts[word])


class HeartbeatFile:
    """The supervisor's side: hands out pages and reads them. Sparse, so unused pages cost nothing."""

    def __init__(self, slots: int = 32768) -> None:
        self.fd = os.memfd_create("greenroom-heartbeat")
        try:
            os.ftruncate(self.fd, slots * _SIZE)
            self._memory = mmap.mmap(self.fd, slots * _SIZE)
        except OSError:
            os.close(self.fd)
            raise
        self._free: list[int] = []
        self._next = 0
        self._slots = slots

    def acquire(self) -> int:
        """A page's number, its counts at zero. Raises ``OSError`` when there are no more."""
        slot = self._free.pop() if self._free else self._next
        if slot >= self._slots:
            raise OSError(f"more than {self._slots} processes at a time")
        self._next = max(self._next, slot + 1)
        _ALL.pack_into(self._memory, slot * _SIZE, 0, 0, 0)
        return slot

    def release(self, slot: int) -> None:
        self._free.append(slot)

    def read(self, slot: int) -> Beats:
        return Beats(*_ALL.unpack_from(self._memory, slot * _SIZE))

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)
