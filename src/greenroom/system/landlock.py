"""Landlock domains (landlock(7)), by which a process confines itself and all that it will start. The standard library
has none.

A domain cannot be left. A process in a domain cannot trace processes outside of it. So it cannot read their memory,
their environment or their open files, either. A scope closes more (Linux 6.12): signals to processes outside of the
domain, or abstract UNIX sockets that were made outside of it.

Only the thread that enters a domain is confined, with the threads and processes that it starts later.
"""

from __future__ import annotations

import ctypes
import errno
import os

__all__ = [
    "SCOPE_ABSTRACT_SOCKETS",
    "SCOPE_SIGNALS",
    "ScopesMissing",
    "abi",
    "enter",
    "plain_ruleset",
    "scoped_ruleset",
]

SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1 << 0, 1 << 1

SCOPES_ABI = 6
"""First version of Landlock with scopes (Linux 6.12)."""
_REFER_ABI = 2
"""First version with the right to rename files from one folder into another (Linux 5.19)."""

# Calls added since Linux 5.1 have the same number on all architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1 << 0
_PATH_BENEATH = 1
_REFER = 1 << 13

LIMIT_VARIABLE = "LANDLOCK_ABI_LIMIT"
"""Variable of the environment for tests: the newest version to use, as an older kernel has it."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class ScopesMissing(OSError):
    """Kernel whose Landlock has no scopes."""


def abi() -> int:
    """Return the version of Landlock in this kernel; 0 if the kernel has none, or has it turned off."""
    try:
        version = _syscall(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:  # ENOSYS: built without; EOPNOTSUPP: not enabled at boot; EPERM: a seccomp profile
        return 0
    limit = os.environ.get(LIMIT_VARIABLE, "")
    return min(version, int(limit)) if limit.isdigit() else version


def scoped_ruleset(scope: int) -> int:
    """Return the fd of a ruleset that closes a scope and no file. Raises ``OSError``, such as ScopesMissing."""
    if abi() < SCOPES_ABI:
        raise ScopesMissing(errno.ENOSYS, "Landlock has no scopes before Linux 6.12")
    attributes = _RulesetAttributes(0, 0, scope)
    return _syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)


def plain_ruleset() -> int:
    """Return the fd of a ruleset that closes nothing but tracing. Raises ``OSError``.

    A ruleset without scopes must handle a right of files. Each right but REFER, if it is not handled together with
    REFER, refuses renames from one folder into another. So this ruleset handles REFER alone, and allows it everywhere.
    """
    if abi() < _REFER_ABI:
        raise OSError(errno.ENOSYS, "Landlock is missing, is turned off, or is older than Linux 5.19")
    handled = ctypes.c_uint64(_REFER)
    ruleset = _syscall(_CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0)
    try:
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            beneath = _PathBeneath(_REFER, root)
            _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(beneath), 0)
        finally:
            os.close(root)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def enter(ruleset: int) -> None:
    """Enter a domain with these rules. Needs no_new_privs or CAP_SYS_ADMIN. Raises ``OSError``."""
    _syscall(_RESTRICT_SELF, ruleset, 0)


def _syscall(number: int, *arguments: object) -> int:
    # c_long: without a type, ctypes passes an int as 32 bits, and the kernel reads 64.
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *given))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
