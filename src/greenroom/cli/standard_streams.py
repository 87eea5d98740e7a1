"""Repair of standard streams that are closed when the process starts. The next open file would take their place."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

__all__ = ["reopen_closed"]


def reopen_closed() -> None:
    """Open ``/dev/null`` for each of the fds 0, 1 and 2 that is closed, and give Python streams for them.

    Otherwise a socket could get number 2. Errors of a C library or a helper process would then go to that socket.
    """
    for fd in range(3):
        if not _is_open(fd):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # open(2) returns the lowest free number
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")


def _is_open(fd: int) -> bool:
    with suppress(OSError):
        os.fstat(fd)
        return True
    return False


def _stream(fd: int, mode: str) -> TextIOWrapper:
    return TextIOWrapper(os.fdopen(fd, f"{mode}b", closefd=False), "utf-8", "backslashreplace")
