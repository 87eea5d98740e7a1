"""By what everything that a pool has started is told from all other processes.

By an entry in its environment; and, where that was cleared or is gone (a zombie has none), by a
resource limit, which fork and exec pass on and which stays until the process is reaped. This one
(RLIMIT_RTTIME) concerns realtime threads alone, and a value as large as the mark does not limit them.
"""

from __future__ import annotations

import resource
from contextlib import suppress

from . import proc

__all__ = ["VARIABLE", "is_on", "put"]

VARIABLE = "GREENROOM_POOL"

_LEAST = 1 << 61  # microseconds


def put(token: str) -> None:
    """Mark this process, and all that it will start; they have the environment already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    if soft != resource.RLIM_INFINITY and soft < _LEAST:
        return  # somebody means it as a limit
    with suppress(ValueError, OSError):  # the hard limit does not allow it
        resource.setrlimit(resource.RLIMIT_RTTIME, (_value(token), hard))


def is_on(pid: int, token: str) -> bool:
    """Whether a process was started by the pool with this token. Raises ``OSError`` when it is gone."""
    return proc.realtime_limit(pid) == _value(token) or proc.environ_has(pid, f"{VARIABLE}={token}".encode())


def _value(token: str) -> int:
    return _LEAST | int(token, 16) % _LEAST
