"""Standard streams that whoever started this process has closed: what is opened next would pass for them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

__all__ = ["reopen_closed"]


def reopen_closed() -> None:
    """Have fds 0, 1 and 2 lead to ``/dev/null`` where they lead nowhere, and Python's streams to them.

    A socket that got number 2 would be written to by whatever complains: a library in C, a helper process.
    """
    for fd in range(3):
        if not _is_open(fd):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest number that is free
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
