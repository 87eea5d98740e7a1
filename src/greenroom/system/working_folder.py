"""Working folder of the worker, by the path that the shell used at the worker's start.

A deployment points the link ``current`` at another release, and then requests a reload. The kernel knows only the
folder to which the link led at the worker's start. A shell keeps the path in ``PWD``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from ..log_fields import log_fields

__all__ = ["WorkingFolder", "way_here"]

_logger = logging.getLogger("greenroom")


def way_here(environ: Mapping[str, str] = os.environ) -> str:
    """Return the path of the current folder: from ``PWD`` if that is true, or else from the kernel.

    Return "." if the folder is deleted.
    """
    way = environ.get("PWD", "")
    with suppress(OSError):
        return way if os.path.isabs(way) and os.path.samefile(way, ".") else os.getcwd()
    return "."


class WorkingFolder:
    """Path to the working folder. At each reload, the process changes to the folder to which the path leads then."""

    def __init__(self) -> None:
        self._way = way_here()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Change to the folder, and stay there. Change back if the block raises."""
        before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # a deleted folder has an fd, and no path
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
            extra = log_fields("folder_not_followed", path=self._way, cause=str(error))
            _logger.warning("%s cannot be followed: %s. The app is loaded from %s", self._way, error, here, extra=extra)
        if (leads_to := _name(".")) != here:
            extra = log_fields("folder_changed", path=leads_to)
            _logger.info("%s now leads to %s", self._way, leads_to, extra=extra)


def _name(folder: str) -> str:
    with suppress(OSError):
        return os.path.realpath(folder, strict=True)
    return "a deleted folder"
