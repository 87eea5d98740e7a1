"""Heartbeat pages: shared memory in which a child's event loop, and a thread beside it, count up.

The child counts and the supervisor compares; no message is sent. A supervisor that was stopped reads the
child's newest count when it wakes, so it never takes a healthy child for a stalled one.
One word goes the other way (``tell_of_signal``).

Each process has a page of its own, in a memfd of its own. The file's size is sealed (``F_SEAL_SHRINK``,
``F_SEAL_GROW``): the kernel ends whoever reads a mapped page that a truncation has taken away, by SIGBUS, and
the reader here is the supervisor. Nothing else is in the file, so ``mremap`` reaches no neighbour.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import time
from typing import NamedTuple

__all__ = ["Beats", "HeartbeatPage", "HeartbeatReader"]

_SIZE = mmap.PAGESIZE
_WORD = struct.Struct("=Q")
_ALL = struct.Struct("=QQQ")
_SIGNAL = struct.Struct("=d")
_SIGNAL_AT = _ALL.size
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Beats(NamedTuple):
    loop: int
    thread: int
    dropped: int
    """Log records that the child says it could not send. The child can write any number here."""


class HeartbeatPage:
    """The child's side: counts in its page. Leaves the fd to its owner."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, _SIZE)
        self._counts = [0, 0, 0]
        self.loop_beat_at = time.monotonic()
        """When the loop last beat, on the monotonic clock."""

    def beat_loop(self) -> None:
        self.loop_beat_at = time.monotonic()
        self._count(0)

    def beat_thread(self) -> None:
        self._count(1)

    def count_dropped(self) -> None:
        self._count(2)

    def group_signal_at(self) -> float:
        """Return when the supervisor last had a signal that may be meant for all (monotonic clock); 0 if never."""
        return float(_SIGNAL.unpack_from(self._memory, _SIGNAL_AT)[0])

    def _count(self, word: int) -> None:
        self._counts[word] += 1
        _WORD.pack_into(self._memory, word * _WORD.size, self._counts[word])


class HeartbeatReader:
    """The supervisor's side of one page.

    :attr:`fd` is for the child, and the caller's to close. Python's mmap keeps a duplicate of it (until 3.13
    there is no way to say otherwise), so a process costs the supervisor one fd for its page.
    Raises ``OSError`` when there are no fds, or no memory, for a page.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("greenroom-heartbeat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, _SIZE)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
            self._memory = mmap.mmap(self.fd, _SIZE)
        except OSError as error:
            os.close(self.fd)
            if error.errno == errno.EFBIG:
                cause = "the limit on the size of files (ulimit -f, LimitFSIZE=) is less than a page of memory"
                raise OSError(error.errno, cause) from None
            raise

    def read(self) -> Beats:
        return Beats(*_ALL.unpack_from(self._memory))

    def tell_of_signal(self, now: float) -> None:
        """Let the child know that a signal which it may have had, too, has come to the supervisor."""
        _SIGNAL.pack_into(self._memory, _SIGNAL_AT, now)

    def close(self) -> None:
        self._memory.close()
