"""Heartbeat pages: shared memory in which a child's event loop, and a thread beside it, count up.

The child counts and the supervisor compares, without a message. A supervisor that was stopped reads the
newest count afterwards. So it never takes a healthy child for a stalled one. The child also writes when its loop
last beat, and how late (:class:`Pulse`).
The supervisor writes two words for the child (``note_signal`` and ``ask_for_stacks``).

Each process has a page of its own, in a memfd of its own. The file's size is sealed (``F_SEAL_SHRINK``,
``F_SEAL_GROW``), since a child could truncate the file otherwise. SIGBUS kills a process that reads a mapped
page beyond the file's end (mmap(2)), and the supervisor reads the page. Behind the page, the file has room for
the stacks of a crash (:mod:`.crash_stacks`), which is no memory before a crash. The file holds nothing else, so a
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

from .crash_stacks import MAX_BYTES

__all__ = ["CRASH_AT", "Beats", "HeartbeatPage", "HeartbeatReader", "Pulse"]

CRASH_AT = mmap.PAGESIZE
"""Offset in the file of the stacks of a crash."""
_SIZE = CRASH_AT + MAX_BYTES
_WORD = struct.Struct("=Q")
_ALL = struct.Struct("=QQQ")
_SIGNAL = struct.Struct("=d")
_SIGNAL_AT = _ALL.size
_PULSE = struct.Struct("=dd")
_PULSE_AT = _SIGNAL_AT + _SIGNAL.size
_WISH_AT = _PULSE_AT + _PULSE.size
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Beats(NamedTuple):
    """Counts of one page: beats of the event loop and of the thread, and dropped log records."""

    loop: int
    thread: int
    dropped: int
    """Log records that the child could not send. The child can write any number here."""


class Pulse(NamedTuple):
    """Last beat of the event loop. The child can write any numbers here, but only about itself."""

    at: float
    """Time on the monotonic clock; 0 before the first beat."""
    late: float
    """Seconds by which the beat came later than it was due."""


class HeartbeatPage:
    """Child's side of a page. The fd stays with its owner, who closes it."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, mmap.PAGESIZE)
        self._counts = [0, 0, 0]
        self.loop_beat_at = time.monotonic()
        """Time of the loop's last beat, on the monotonic clock."""

    def beat_loop(self, due: float | None = None) -> None:
        """Count a beat of the event loop, which was due at that time on the monotonic clock."""
        now = self.loop_beat_at = time.monotonic()
        _PULSE.pack_into(self._memory, _PULSE_AT, now, 0.0 if due is None else max(now - due, 0.0))
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

    def stacks_asked(self) -> int:
        """Return how often the supervisor has asked for the stacks of this process."""
        return int(_WORD.unpack_from(self._memory, _WISH_AT)[0])

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
                cause = f"the limit on the size of files (ulimit -f, LimitFSIZE=) is less than {_SIZE // 1024} KiB"
                raise OSError(error.errno, cause) from None
            raise

    def read(self) -> Beats:
        return Beats(*_ALL.unpack_from(self._memory))

    def pulse(self) -> Pulse | None:
        """Read the last beat of the event loop; ``None`` before the first, and for numbers that cannot be."""
        at, late = _PULSE.unpack_from(self._memory, _PULSE_AT)
        return Pulse(at, late) if 0 < at <= time.monotonic() and 0 <= late < at else None

    def ask_for_stacks(self) -> None:
        """Ask the child to write its stacks into its dump: see :mod:`greenroom.system.stackdump`."""
        _WORD.pack_into(self._memory, _WISH_AT, _WORD.unpack_from(self._memory, _WISH_AT)[0] + 1)

    def note_signal(self, now: float) -> None:
        """Notify the child of a signal to the supervisor, which the child may have received, too."""
        _SIGNAL.pack_into(self._memory, _SIGNAL_AT, now)

    def crash_text(self) -> bytes:
        """Return what the child wrote behind the page. This takes memory, so call it only after a crash."""
        return self._memory[CRASH_AT:]

    def close(self) -> None:
        self._memory.close()
