"""Wrapper of ``prctl(2)``: subreapers, signals at a parent's death, names, and walls. The standard library has none."""

from __future__ import annotations

import ctypes
import os
import signal

__all__ = [
    "set_child_subreaper",
    "set_dumpable",
    "set_name",
    "set_no_new_privileges",
    "set_parent_death_signal",
]

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

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


def set_dumpable(wanted: bool) -> None:
    """Set whether processes of the same user may look into this process: trace it, or read its memory and files.

    The kernel makes the process dumpable again when it executes a program.
    """
    _prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(wanted))


def set_no_new_privileges() -> None:
    """Have no program that this process executes get more privileges, such as by a setuid bit. Inherited; for good."""
    _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))


def _prctl(option: int, argument: object) -> None:
    zero = ctypes.c_ulong(0)
    if _libc.prctl(option, argument, zero, zero, zero) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl({option}): {os.strerror(errno)}")
