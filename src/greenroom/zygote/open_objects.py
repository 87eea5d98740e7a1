"""Objects that a process has open when it ends by ``os._exit``.

The interpreter finishes such objects when it clears its modules, but ``os._exit`` does not. A file that a global or
``proc.userdata`` holds may have its last lines in a buffer. A temporary file exists until its object is deleted. Only
some destructors are run here: those of C libraries hang or abort in a forked process.
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

__all__ = ["finish", "log_errors"]

_CONTAINERS = {
    "bz2": "BZ2File",
    "gzip": "GzipFile",
    "lzma": "LZMAFile",
    "shelve": "Shelf",
    "soundfile": "SoundFile",
    "wave": "Wave_write",
    "zipfile": "ZipFile",
}
"""Classes, by module, that write their last data when they are closed, such as a header or an index."""


def log_errors() -> None:
    """Have each task and future log its exception if no code has read it, as at its collection."""
    for future in _made_here(asyncio.Future):
        is_unheard = getattr(future, "_log_traceback", False)
        if is_unheard and not isinstance(future._exception, SystemExit | KeyboardInterrupt):  # these end the job
            future.__del__()


def finish() -> None:
    """Write all buffers to their files, and remove temporary files."""
    texts, buffers = (io.TextIOWrapper,), (io.BufferedWriter, io.BufferedRandom)
    containers, closers = _loaded(_CONTAINERS), _loaded({"tempfile": "_TemporaryFileCloser"})
    found = _made_here(*texts, *containers, *buffers, *closers)
    steps = [(texts, _flush), (containers, _close), (buffers, _flush), (closers, _remove)]
    for kinds, step in steps:  # a writer comes before the file that it writes into
        for each in _of(found, kinds):
            with suppress(Exception):  # closed, half made, or the disk is full: no report is possible any more
                step(each)


def _flush(file: Any) -> None:
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a write to a full pipe would block if its reader has stopped
        file.flush()


def _close(container: Any) -> None:
    container.close()


def _remove(closer: Any) -> None:
    closer.__del__()


def _made_here(*kinds: type) -> list[Any]:
    """Return the objects of these types that this process has made.

    The collector does not list the zygote's, which are frozen.
    """
    return _of(gc.get_objects(), kinds)


def _of(objects: Iterable[Any], kinds: tuple[type, ...]) -> list[Any]:
    # By type(): an object's __class__ may be code. That of a lazy proxy loads the real object.
    return [each for each in objects if issubclass(type(each), kinds)]


def _loaded(names: Mapping[str, str]) -> tuple[type, ...]:
    """Return the classes whose modules are imported. No object of any other class exists in this process."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in names.items())
    return tuple(kind for kind in found if isinstance(kind, type))
