"""Page of memory that one process writes, and that its forks read and cannot change.

The process has the page mapped twice. The writable mapping is not inherited (``MADV_DONTFORK``). The other one comes
from an fd that was opened for reading, so nothing can make it writable later (mprotect(2)). No fd of the page stays
open: a fork could open it anew for writing. Python's mmap keeps one, so this calls ``mmap(2)`` itself.
"""

from __future__ import annotations

import ctypes
import mmap
import os

__all__ = ["OneWriterPage"]

_FAILED = ctypes.c_void_p(-1).value
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_MADV_DONTFORK = 10


class OneWriterPage:
    """Page of this process. It lasts as long as the process. Raises ``OSError``."""

    def __init__(self) -> None:
        fd = os.memfd_create("greenroom-page", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, mmap.PAGESIZE)
            self._writable = _map(fd, mmap.PROT_READ | mmap.PROT_WRITE)
            reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._readable = _map(reading, mmap.PROT_READ)
            finally:
                os.close(reading)
        finally:
            os.close(fd)
        place, size = ctypes.c_void_p(self._writable), ctypes.c_size_t(mmap.PAGESIZE)
        if _libc.madvise(place, size, ctypes.c_int(_MADV_DONTFORK)) != 0:
            raise _error("madvise")

    def write(self, data: bytes) -> None:
        """Write at the start of the page. Not to be called in a fork, which has no memory there."""
        ctypes.memmove(self._writable, data, len(data))

    def read(self, size: int) -> bytes:
        return ctypes.string_at(self._readable, size)


def _map(fd: int, access: int) -> int:
    size, zero = ctypes.c_size_t(mmap.PAGESIZE), ctypes.c_long(0)
    place: int | None = _libc.mmap(
        None, size, ctypes.c_int(access), ctypes.c_int(mmap.MAP_SHARED), ctypes.c_int(fd), zero
    )
    if place is None or place == _FAILED:
        raise _error("mmap")
    return place


def _error(call: str) -> OSError:
    errno = ctypes.get_errno()
    return OSError(errno, f"{call}: {os.strerror(errno)}")
