"""Memory sharing: keeps the zygote's memory shared with its children for as long as possible."""

from __future__ import annotations

import gc

__all__ = ["settle"]

_POOL_BYTES = 16 * 1024  # a pool of CPython's small-object allocator, since 3.10 (Objects/obmalloc.c)
_POOL_HEADER = 48
_ALIGNMENT = 16
_LARGEST = 512
_BYTES_HEADER = 33  # the size of an empty bytes object
_MOST_HOLES = 200_000

_fillings: list[bytes] = []


def settle() -> None:
    """Arrange the loaded objects so that children copy as few pages of memory as possible.

    The garbage collector writes into every object that it examines. So ``gc.freeze`` excludes all present objects. The
    allocator puts new objects into holes between old ones. Each new object could cost a child the copy of a page, so
    the holes are filled.
    """
    gc.collect()  # this also clears the interpreter's free lists
    gc.disable()
    for size in range(_BYTES_HEADER + 7, _LARGEST + 1, _ALIGNMENT):
        _fill_holes(size)
    gc.freeze()


def _fill_holes(size: int) -> None:
    """Allocate objects of one size class until the allocator begins a new pool for them.

    Another allocator (``PYTHONMALLOC``, ``-X dev``) has no such pools. Unexpected addresses of the objects show that,
    and end the loop.
    """
    block = -(-size // _ALIGNMENT) * _ALIGNMENT
    for _ in range(_MOST_HOLES):
        filling = bytes(size - _BYTES_HEADER)
        _fillings.append(filling)
        place = id(filling) % _POOL_BYTES - _POOL_HEADER
        if place == 0 or place % block:
            return
