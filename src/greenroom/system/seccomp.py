"""Seccomp filter (seccomp(2)) for resource limits: a session changes none of another process, and not its own mark.

Landlock does not cover ``prlimit(2)``. With it, a session could set the supervisor's limit on open files to 0. The mark
is the process's own RLIMIT_RTTIME (:mod:`.mark`). With another one, what a session starts would belong to its
neighbour, or to nobody.

The filter is a program of classic BPF. It sees the number and the arguments of each system call of the process, and of
all that the process starts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import sys
from typing import NamedTuple

__all__ = ["Filter", "architecture"]


class _Architecture(NamedTuple):
    audit: int
    """``AUDIT_ARCH_*``: the kernel's number of the architecture. System calls of another one have another number."""
    seccomp: int
    """Number of seccomp(2)."""
    prlimit64: int
    """Number of prlimit64(2)."""
    setrlimit: int
    """Number of setrlimit(2)."""
    foreign_from: int
    """Least number of a system call with a foreign interface on the same architecture (x32)."""


_ARCHITECTURES = {
    "x86_64": _Architecture(0xC000003E, 317, 302, 160, 0x40000000),
    "aarch64": _Architecture(0xC00000B7, 277, 261, 164, 0x100000000),
}

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCH = 0, 4  # offsets in struct seccomp_data
_FIRST, _SECOND, _THIRD = 16, 24, 32  # those of arguments: their lower halves, on a little-endian machine
_NO_NUMBER = 0xFFFFFFFF
_SET_MODE_FILTER = 1
_SPEC_ALLOW = 1 << 2
"""Flag without which Linux before 5.16 runs all code behind a filter more slowly, against a flaw of CPUs."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def architecture() -> str | None:
    """Return the name of this architecture, if the filter knows its numbers; else ``None``."""
    is_known = os.uname().machine in _ARCHITECTURES and sys.byteorder == "little" and sys.maxsize > 2**32
    return os.uname().machine if is_known else None


class Filter:
    """Filter for one architecture, prepared before the fork. Raises ``OSError`` if the architecture is not known."""

    def __init__(self) -> None:
        name = architecture()
        if name is None:
            raise OSError(errno.ENOSYS, f"the numbers of system calls on {os.uname().machine} are not known")
        self._architecture = _ARCHITECTURES[name]
        self._code = _code(self._architecture)

    def enter(self) -> None:
        """Put this process, and all that it will start, behind the filter. Raises ``OSError``."""
        code = bytearray(self._code)
        put_pid(code, os.getpid())
        program = _Program(len(code) // 8, bytes(code))  # holds a reference to the bytes
        numbers = (self._architecture.seccomp, _SET_MODE_FILTER, _SPEC_ALLOW)
        if _libc.syscall(*map(ctypes.c_long, numbers), ctypes.byref(program)) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))


def put_pid(code: bytearray, pid: int) -> None:
    """Write the pid of the process that will enter the filter into the code, where no pid was written before."""
    # The value of an instruction follows its code and its two jumps.
    struct.pack_into("<I", code, code.index(_jump(_EQUAL, _NO_NUMBER, 0, 1)) + 4, pid)


def _code(arch: _Architecture) -> bytes:
    """Return the instructions. The pid of the process is ``_NO_NUMBER``, to be replaced."""
    lines = [_statement(_LOAD, _ARCH), _jump(_EQUAL, arch.audit, 1, 0), _statement(_RETURN, _ERRNO | errno.ENOSYS)]
    lines += [_statement(_LOAD, _NUMBER)]
    if arch.foreign_from <= _NO_NUMBER:
        lines += [_jump(_AT_LEAST, arch.foreign_from, 0, 1), _statement(_RETURN, _ERRNO | errno.ENOSYS)]
    refused = _statement(_RETURN, _ERRNO | errno.EPERM)
    of_setrlimit = [_statement(_LOAD, _FIRST), _jump(_EQUAL, resource.RLIMIT_RTTIME, 0, 1), refused]
    lines += [_jump(_EQUAL, arch.setrlimit, 0, len(of_setrlimit) + 1), *of_setrlimit, _statement(_RETURN, _ALLOW)]
    lines += [_jump(_EQUAL, arch.prlimit64, 1, 0), _statement(_RETURN, _ALLOW)]
    # A null pointer for the new limit: the call only reads the limit.
    lines += [_statement(_LOAD, _THIRD), _jump(_EQUAL, 0, 0, 3)]
    lines += [_statement(_LOAD, _THIRD + 4), _jump(_EQUAL, 0, 0, 1), _statement(_RETURN, _ALLOW)]
    lines += [_statement(_LOAD, _SECOND), _jump(_EQUAL, resource.RLIMIT_RTTIME, 0, 1), refused]
    lines += [_statement(_LOAD, _FIRST)]
    for own in (0, _NO_NUMBER):
        lines += [_jump(_EQUAL, own, 0, 1), _statement(_RETURN, _ALLOW)]
    lines += [refused]
    return b"".join(lines)


def _statement(code: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, 0, 0, value)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    """Return a comparison, with the number of instructions to skip in each case."""
    return struct.pack("<HBBI", code, if_true, if_false, value)
