"""Marks, which distinguish the processes of one pool, and of one session in it, from all other processes.

A mark is a resource limit and an entry in the environment. The environment alone is not enough: a process can clear it,
and a zombie has no environment any more. A resource limit is inherited by fork and exec, and stays until the process is
reaped. The limit is RLIMIT_RTTIME, which concerns only realtime threads. A value as large as a mark does not really
limit these threads, either.

The mark names the pool and the owner. The owner is the pid of the process in which a session or a service runs. A
process that belongs to no session has the owner ``ZYGOTES``. The bits of the limit, in microseconds, are::

     63   62   61 ........... 22   21 ...... 0
    +---+----+-------------------+------------+
    | 0 |  1 |  pool: 40 bits    |  owner: 22 |
    +---+----+-------------------+------------+

- Bit 62 makes the value so large that it limits nothing.
- The pool is the lowest 40 bits of its token, which is a random number of 64 bits. Two pools of one machine whose
  tokens have the same lowest 40 bits could not be distinguished. The chance is about 1 in 10**12 for two pools.
- A pid has at most 22 bits (``/proc/sys/kernel/pid_max`` in proc(5)).
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Callable, Collection
from contextlib import suppress

from . import proc
from .trackers import is_resource_tracker

__all__ = [
    "OWNER_VARIABLE",
    "REAPED_VARIABLE",
    "VARIABLE",
    "ZYGOTES",
    "group_of",
    "is_on",
    "living",
    "may_belong",
    "owner_of",
    "put",
]

VARIABLE = "GREENROOM_POOL"
OWNER_VARIABLE = "GREENROOM_OWNER"
REAPED_VARIABLE = "GREENROOM_REAPED_POOL"
"""Variable with the token of a reaper's pool. A reaper process has no mark of that pool.

The token is not an argument, because every user can read command lines.
"""

ZYGOTES = 0
"""Owner number (not a pid) for processes outside any session."""

_LEAST = 1 << 62  # microseconds
_PID_BITS, _POOL_BITS = 22, 40

_is_readable: bool | None = None
"""True if the limit of a process can be read back; ``None`` before the first try. Forks inherit the answer."""


def put(token: str, owner: int = ZYGOTES) -> bool:
    """Mark this process, and all processes that it will start. ``VARIABLE`` must be in the environment already.

    Return true if the limit could be set and can be read back. With false, only the environment is marked.
    """
    if owner != ZYGOTES:
        # A session may itself supervise a pool. The processes of that pool have two owners.
        outer = [each for each in os.environ.get(OWNER_VARIABLE, "").split() if not each.startswith(f"{token}:")]
        os.environ[OWNER_VARIABLE] = " ".join([f"{token}:{owner}", *outer])
    soft, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    if soft != resource.RLIM_INFINITY and soft < _LEAST:
        return False  # somebody set a real limit; the mark would raise it
    try:
        resource.setrlimit(resource.RLIMIT_RTTIME, (_pool_value(token) | owner, hard))
    except (ValueError, OSError):  # the hard limit does not allow it
        return False
    return _limits_are_readable(token)


def is_on(pid: int, token: str) -> bool:
    """Return whether process ``pid`` was started by the pool with this token, or by a process of that pool.

    Raises ``OSError`` when the process is gone.
    """
    return owner_of(pid, token) is not None or proc.environ_has(pid, f"{VARIABLE}={token}".encode())


def living(token: str) -> list[int]:
    """Return the other processes with the mark of the pool with this token, wherever they are; no dead ones.

    While the limit names some, other than resource trackers, no environment is read: who reads one waits for the memory
    map of the process, and a session of another pool can keep that locked (:mod:`greenroom.system.trackers`). So call
    this until none is left.
    """
    others = [pid for pid in proc.pids() if pid != os.getpid()]
    found = _those(others, lambda pid: _owner_by_limit(pid, token) is not None)
    return _those(others, lambda pid: is_on(pid, token)) if all(map(is_resource_tracker, found)) else found


def _those(pids: list[int], condition: Callable[[int], bool]) -> list[int]:
    """Return the living processes for which a condition is true."""
    found = []
    for pid in pids:
        with suppress(OSError):  # gone by now, or not readable for this user
            if condition(pid) and proc.stat(pid).state not in "ZX":
                found.append(pid)
    return found


def owner_of(pid: int, token: str) -> int | None:
    """Return the owner of process ``pid``; ``None`` if the process has no readable mark of the pool with this token.

    Raises ``OSError`` when the process is gone.
    """
    owner = _owner_by_limit(pid, token)
    if owner is not None:
        return owner
    with suppress(PermissionError):  # the process has changed its user
        for each in (proc.environ_value(pid, OWNER_VARIABLE.encode()) or b"").split():
            pool, _, number = each.partition(b":")
            if pool == token.encode() and number.isdigit():
                return int(number)
    return None


def _owner_by_limit(pid: int, token: str) -> int | None:
    limit = proc.realtime_limit(pid)
    if limit is None or limit >> _PID_BITS != _pool_value(token) >> _PID_BITS:
        return None
    return limit & ((1 << _PID_BITS) - 1)


def _pool_value(token: str) -> int:
    return _LEAST | int(token, 16) % (1 << _POOL_BITS) << _PID_BITS


def _limits_are_readable(token: str) -> bool:
    global _is_readable
    if _is_readable is None:
        try:
            _is_readable = _owner_by_limit(os.getpid(), token) is not None
        except OSError:
            _is_readable = False
    return _is_readable


def may_belong(pid: int, alive: Collection[int], dead: Collection[int] = ()) -> bool:
    """Return whether one of the owners in ``alive`` may have started process ``pid``. The mark is not read.

    Each owner leads a process group, so the group of a process may name its owner. If that owner is in ``alive``, the
    answer is yes. If that owner is in ``dead``, the answer is no. Otherwise every owner in ``alive`` that is older than
    the process is possible.

    If the process is gone, its age is not known, and the answer is yes if ``alive`` has an owner. Raises ``OSError``
    when no fd is free.
    """
    group = group_of(pid)
    return group in alive or (group not in dead and any(_started(each) <= _started(pid) for each in alive))


def group_of(pid: int) -> int | None:
    """Return the process group of process ``pid``; ``None`` if the process is gone."""
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _started(pid: int) -> float:
    try:
        return proc.stat(pid).started
    except OSError as error:
        if proc.is_out_of_fds(error):
            raise
        return math.inf  # the process has ended
