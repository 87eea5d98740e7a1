"""Marks: they tell what a pool has started from other processes, and what one session has started from the rest.

By an entry in its environment; and, where that was cleared or is gone (a zombie has none), by a
resource limit, which fork and exec pass on and which stays until the process is reaped. This one
(RLIMIT_RTTIME) concerns realtime threads alone, and a value as large as the mark does not limit them.

The mark names the pool, and the owner: the pid of the process that a session (or a service) runs in, or
``ZYGOTES`` for what belongs to no session. A pid has 22 bits at the most.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress

from . import proc

__all__ = ["OWNER_VARIABLE", "VARIABLE", "ZYGOTES", "is_on", "owner_of", "put"]

VARIABLE = "GREENROOM_POOL"
OWNER_VARIABLE = "GREENROOM_OWNER"

ZYGOTES = 0
"""The owner of what no session has started."""

_LEAST = 1 << 62  # microseconds
_PID_BITS, _POOL_BITS = 22, 40

_is_readable: bool | None = None
"""The kernel shows the limits of a process: asked once, and known to forks."""


def put(token: str, owner: int = ZYGOTES) -> bool:
    """Mark this process, and all that it will start; they have the pool's environment already.

    Returns whether an owner is told by more than the environment.
    """
    if owner != ZYGOTES:
        # A session may be the supervisor of a pool in turn. What is below that one belongs to both.
        outer = [each for each in os.environ.get(OWNER_VARIABLE, "").split() if not each.startswith(f"{token}:")]
        os.environ[OWNER_VARIABLE] = " ".join([f"{token}:{owner}", *outer])
    soft, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    if soft != resource.RLIM_INFINITY and soft < _LEAST:
        return False  # somebody means it as a limit
    try:
        resource.setrlimit(resource.RLIMIT_RTTIME, (_pool_value(token) | owner, hard))
    except (ValueError, OSError):  # the hard limit does not allow it
        return False
    return _limits_are_readable(token)


def is_on(pid: int, token: str) -> bool:
    """Whether a process was started by the pool with this token. Raises ``OSError`` when it is gone."""
    return owner_of(pid, token) is not None or proc.environ_has(pid, f"{VARIABLE}={token}".encode())


def owner_of(pid: int, token: str) -> int | None:
    """Return the owner of a process of this pool; ``None`` where nothing tells. Raises ``OSError`` when it is gone."""
    owner = _owner_by_limit(pid, token)
    if owner is not None:
        return owner
    with suppress(PermissionError):  # it has changed its user
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
