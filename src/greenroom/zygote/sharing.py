"""Keeping the memory of the zygote shared with its children for as long as possible."""

from __future__ import annotations

import gc

__all__ = ["settle"]

_POOL_BYTES = 16 * 1024  # of CPython's small-object allocator, 3.10 and later (Objects/obmalloc.c)
_POOL_HEADER = 48
_ALIGNMENT = 16
_LARGEST = 512
_BYTES_HEADER = 33  # of an empty bytes object
_MOST_HOLES = 200_000

_fillings: list[bytes] = []


def settle() -> None:
    """Arrange what was loaded so that children copy as little of it as can be.

    The garbage collector writes into every object that it looks at: what is there now is put out of
    its sight (``gc.freeze``). And the allocator puts new objects into holes between old ones, so that
    each would cost a child the copy of a page: the holes are filled.
    """
    gc.collect()  # clears the interpreter's free lists, too
    gc.disable()
    for size in range(_BYTES_HEADER + 7, _LARGEST + 1, _ALIGNMENT):
        _fill_holes(size)
    gc.freeze()


def _fill_holes(size: int) -> None:
    """Allocate objects of one size class until the allocator begins a new pool for them.

    Another allocator (``PYTHONMALLOC``, ``-X dev``) has no such pools: it is told by where it puts the objects.
    """
    block = -(-size // _ALIGNMENT) * _ALIGNMENT
    for _ in range(_MOST_HOLES):
        filling = bytes(size - _BYTES_HEADER)
        _fillings.append(filling)
        place = id(filling) % _POOL_BYTES - _POOL_HEADER
        if place == 0 or place % block:
            return
