"""Wrapper of ``prctl(2)``, for subreapers, signals at a parent's death, and names. The standard library has none."""

from __future__ import annotations

import ctypes
import os
import signal

__all__ = ["set_child_subreaper", "set_name", "set_parent_death_signal"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def set_child_subreaper(wanted: bool = True) -> None:
    """Have this process, and not init, adopt the orphans among its descendants. Not inherited by fork."""
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(wanted))


def set_parent_death_signal() -> None:
    """Have the kernel kill this process when the parent's thread that forked it ends. Not inherited by fork."""
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))


def set_name(name: str) -> None:
    """Set the name that ``ps -o comm`` and ``top`` show. The kernel keeps 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def _prctl(option: int, argument: object) -> None:
    zero = ctypes.c_ulong(0)
    if _libc.prctl(option, argument, zero, zero, zero) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl({option}): {os.strerror(errno)}")
