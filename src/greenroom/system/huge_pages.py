"""Huge pages for the memory of this process: a fork copies one entry for 2 MiB instead of 512.

In each fork, the kernel copies the page tables of private memory. So a fork of much memory takes long, and with huge
pages it takes about a fifteenth of that. ``MADV_COLLAPSE`` (madvise(2), since Linux 6.1) moves present memory into huge
pages. It needs no ``MADV_HUGEPAGE``, so children inherit no advice: their new memory comes in small pages, as before. A
child that writes to a huge page splits its map of the page, and copies 4 KiB.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from . import proc

__all__ = ["Arrangement", "arrange"]

HUGE = 2 << 20
"""Bytes of a huge page, on x86-64 and on arm64 with pages of 4 KiB."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MADV_COLLAPSE = 25
_MOST_HOLES = 64
"""Most of the 512 pages of a huge page that may be new: each page without memory now would take 4 KiB more."""
_MOST_FAILURES = 16
"""Failures in a row after which no further page is tried: the kernel has no free huge pages."""
_MOST_REFUSALS = 4
"""Refusals in a row (EINVAL) after which no further page of a map is tried."""
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")

_libc = ctypes.CDLL(None, use_errno=True)


class Arrangement(NamedTuple):
    """Memory of this process after :func:`arrange`, and the cost of the arrangement."""

    anonymous_mb: float
    """Resident memory (MiB) without a file: a fork copies its page tables."""
    huge_mb: float
    """Part of it that is in huge pages now."""
    cpu_seconds: float
    problem: str = ""
    """Reason why no more memory is in huge pages; an empty text if all suitable memory is."""


def arrange(cpu_seconds: float | None) -> Arrangement:
    """Move this process's memory into huge pages, the largest maps first, in at most ``cpu_seconds`` of CPU time.

    ``None`` moves nothing. Never raises an error of the kernel's: :attr:`Arrangement.problem` names it.
    """
    begin = time.thread_time()
    size = proc.anonymous_mb(os.getpid())
    problem = _obstacle(cpu_seconds)
    if problem or cpu_seconds is None:
        return Arrangement(size, 0.0, time.thread_time() - begin, problem)
    mover = _Mover(begin + cpu_seconds)
    try:
        maps = sorted(_anonymous_maps(), key=lambda one: one[0] - one[1])
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            problem = next((found for span in maps if (found := mover.move(span, pagemap.fileno()))), "")
    except OSError as error:
        problem = str(error)
    if not problem and not mover.moved and mover.refusal:
        problem = f"the kernel refuses to move memory (MADV_COLLAPSE, Linux 6.1): {mover.refusal}"
    return Arrangement(size, mover.moved * HUGE / 2**20, time.thread_time() - begin, problem)


class _Mover:
    """Mover of maps into huge pages, until a point of this thread's CPU time."""

    def __init__(self, until: float) -> None:
        self.moved = 0
        """Number of huge pages."""
        self.refusal = ""
        """Text of the error with which the kernel has refused a map."""
        self._until = until
        self._failures = 0

    def move(self, span: tuple[int, int], pagemap: int) -> str:
        """Move one map. Return the reason to try no other map, or an empty text."""
        begin, end = span
        refused = 0
        for place in range(-(-begin // HUGE) * HUGE, end // HUGE * HUGE, HUGE):
            if time.thread_time() >= self._until:
                return "the CPU time for it is spent"
            if _holes(pagemap, place) > _MOST_HOLES:
                continue
            error = _collapse(place)
            if error == 0:
                self.moved, self._failures = self.moved + 1, 0
                continue
            self._failures += 1
            self.refusal = os.strerror(error)
            refused = refused + 1 if error == errno.EINVAL else 0
            if refused >= _MOST_REFUSALS:
                break  # this map cannot have huge pages (MADV_NOHUGEPAGE), or no map can
            if error != errno.EINVAL and self._failures >= _MOST_FAILURES:
                return f"the kernel has no huge page free: {self.refusal}"
        return ""


def _obstacle(cpu_seconds: float | None) -> str:
    if cpu_seconds is None:
        return "it is switched off"
    try:
        mode, size = _MODE.read_text(), int(_SIZE.read_text())
    except (OSError, ValueError):
        return "the kernel has no transparent huge pages"
    if "[never]" in mode:
        return f"the operator has switched huge pages off ({_MODE})"
    if size != HUGE or _PAGE != 4096:
        return f"a huge page has {size >> 10} KiB on this machine, not {HUGE >> 10}"
    return ""


def _anonymous_maps() -> Iterator[tuple[int, int]]:
    """Yield begin and end of each private writable map without a file. The stack is left out."""
    for line in Path("/proc/self/maps").read_bytes().split(b"\n"):  # a file's name may hold any other byte
        span, access, _, _, inode, *name = line.split(maxsplit=5) if line else [b""] * 5
        if access.startswith(b"rw") and access.endswith(b"p") and inode == b"0" and name != [b"[stack]"]:
            begin, _, end = span.partition(b"-")
            yield int(begin, 16), int(end, 16)


def _holes(pagemap: int, place: int) -> int:
    """Return the number of pages in a possible huge page for which it would take new memory.

    The highest byte of an entry has a bit for present (63), in swap (62) and mapped by this process alone (56):
    Documentation/admin-guide/mm/pagemap.rst. It is 0 for a page without memory. It has only bit 63 for the kernel's
    page of zeros, which a read of a new page maps, and for a page that another process shares.
    """
    entries = os.pread(pagemap, HUGE // _PAGE * 8, place // _PAGE * 8)
    highest = entries[7::8]
    return highest.count(0) + highest.count(0x80)


def _collapse(place: int) -> int:
    """Move one huge page's worth of memory. Return 0, or the error number."""
    result = _libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(HUGE), ctypes.c_int(_MADV_COLLAPSE))
    return ctypes.get_errno() if result != 0 else 0
