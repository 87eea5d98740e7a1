"""Heartbeat pages: shared memory in which a child's event loop, and a thread beside it, count up.

The child counts and the supervisor compares, without a message. A supervisor that was stopped reads the
newest count afterwards. So it never takes a healthy child for a stalled one.
The supervisor writes one word for the child (``note_signal``).

Each process has a page of its own, in a memfd of its own. The file's size is sealed (``F_SEAL_SHRINK``,
``F_SEAL_GROW``), since a child could truncate the file otherwise. SIGBUS kills a process that reads a mapped
page beyond the file's end (mmap(2)), and the supervisor reads the page. The file holds nothing else, so a
child that enlarges its mapping with ``mremap`` reaches no other page.
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
    """Counts of one page: beats of the event loop and of the thread, and dropped log records."""

    loop: int
    thread: int
    dropped: int
    """Log records that the child could not send. The child can write any number here."""


class HeartbeatPage:
    """Child's side of a page. The fd stays with its owner, who closes it."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, _SIZE)
        self._counts = [0, 0, 0]
        self.loop_beat_at = time.monotonic()
        """Time of the loop's last beat, on the monotonic clock."""

    def beat_loop(self) -> None:
        self.loop_beat_at = time.monotonic()
        self._count(0)

    def beat_thread(self) -> None:
        self._count(1)

    def count_dropped(self) -> None:
        self._count(2)

    def group_signal_at(self) -> float:
        """Return the time of the supervisor's last signal that may have gone to all processes; 0 if there was none.

        The time is on the monotonic clock.
        """
        return float(_SIGNAL.unpack_from(self._memory, _SIGNAL_AT)[0])

    def _count(self, word: int) -> None:
        self._counts[word] += 1
        _WORD.pack_into(self._memory, word * _WORD.size, self._counts[word])


class HeartbeatReader:
    """Supervisor's side of one page.

    :attr:`fd` is for the child, and the caller closes it. Python's mmap keeps a duplicate of the fd, and before
    3.13 nothing can prevent that. So a page costs the supervisor one fd.
    Raises ``OSError`` when no fds, or no memory, are left for a page.
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

    def note_signal(self, now: float) -> None:
        """Notify the child of a signal to the supervisor, which the child may have received, too."""
        _SIGNAL.pack_into(self._memory, _SIGNAL_AT, now)

    def close(self) -> None:
        self._memory.close()
