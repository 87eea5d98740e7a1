"""What a process has open when it ends by ``os._exit``: the interpreter would see to it, by clearing its modules.

A file that the app writes, and that a global or ``proc.userdata`` holds, has its last lines in a buffer; a temporary
file is there until its object goes. Not all destructors are run for that: those of C libraries hang or abort in a
forked process.
"""

from __future__ import annotations

import asyncio
import gc
import io
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

__all__ = ["finish", "tell_of_errors"]

_CONTAINERS = {
    "bz2": "BZ2File",
    "gzip": "GzipFile",
    "lzma": "LZMAFile",
    "shelve": "Shelf",
    "soundfile": "SoundFile",
    "wave": "Wave_write",
    "zipfile": "ZipFile",
}
"""Classes, by module, that write what they still have, a header or an index, when they are closed."""


def tell_of_errors() -> None:
    """Have each task and future say what it raised if nobody has asked for it, as it does when it is collected."""
    for future in _made_here(asyncio.Future):
        is_unheard = getattr(future, "_log_traceback", False)
        if is_unheard and not isinstance(future._exception, SystemExit | KeyboardInterrupt):  # these end the session
            future.__del__()


def finish() -> None:
    """Write what is in buffers, and remove temporary files."""
    texts, buffers = (io.TextIOWrapper,), (io.BufferedWriter, io.BufferedRandom)
    containers, closers = _loaded(_CONTAINERS), _loaded({"tempfile": "_TemporaryFileCloser"})
    found = _made_here(*texts, *containers, *buffers, *closers)
    steps = [(texts, _flush), (containers, _close), (buffers, _flush), (closers, _remove)]
    for kinds, step in steps:  # each before what it writes into
        for each in _of(found, kinds):
            with suppress(Exception):  # closed, half made, or the disk is full: there is nobody left to tell
                step(each)


def _flush(file: Any) -> None:
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe may be full, and its reader stand still
        file.flush()


def _close(container: Any) -> None:
    container.close()


def _remove(closer: Any) -> None:
    closer.__del__()


def _made_here(*kinds: type) -> list[Any]:
    """Return the objects of some types that this process has made: the zygote's are out of the collector's sight."""
    return _of(gc.get_objects(), kinds)


def _of(objects: Iterable[Any], kinds: tuple[type, ...]) -> list[Any]:
    # By type(): an object's __class__ may be code, such as a lazy proxy's that loads what it stands for.
    return [each for each in objects if issubclass(type(each), kinds)]


def _loaded(names: Mapping[str, str]) -> tuple[type, ...]:
    """Return the classes, by module, of which this process can have objects."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in names.items())
    return tuple(kind for kind in found if isinstance(kind, type))
