"""The folder that the worker runs in, by the way that whoever started it took there.

A deployment has the link ``current`` lead to another release, and asks for a reload. The kernel knows only where the
link led when the worker was started; a shell keeps the way in ``PWD``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

__all__ = ["WorkingFolder", "way_here"]

_logger = logging.getLogger("greenroom")


def way_here(environ: Mapping[str, str] = os.environ) -> str:
    """The current folder as ``PWD`` has it, if that is true; else as the kernel has it; "." if it is deleted."""
    way = environ.get("PWD", "")
    with suppress(OSError):
        return way if os.path.isabs(way) and os.path.samefile(way, ".") else os.getcwd()
    return "."


class WorkingFolder:
    """Goes to the folder where the way leads now, at each reload."""

    def __init__(self) -> None:
        self._way = way_here()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Be there from now on; in the folder of before again, if the block raises."""
        before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # it may be deleted: then it has no path
        try:
            self._go()
            yield
        except BaseException:
            os.fchdir(before)
            raise
        finally:
            os.close(before)

    def _go(self) -> None:
        here = _name(".")
        try:
            os.chdir(self._way)
        except OSError as error:
            _logger.warning("%s cannot be followed: %s. The app is loaded from %s", self._way, error, here)
        if _name(".") != here:
            _logger.info("%s leads to %s now", self._way, _name("."))


def _name(folder: str) -> str:
    with suppress(OSError):
        return os.path.realpath(folder, strict=True)
    return "a folder that is deleted"
