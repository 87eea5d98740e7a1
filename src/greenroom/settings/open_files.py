"""Open files that settings need, and what a limit on them suffices for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import PoolOptions
from .server import ServerOptions

__all__ = ["FDS_PER_PROCESS", "FEWEST_CONNECTIONS", "Limits", "fds_needed", "limits_of", "sessions_within"]

FDS_PER_PROCESS = 8
"""Control and log socket, stdout, stderr, lifeline, heartbeat page, pidfd; and one more while it is made or dumped."""
FEWEST_CONNECTIONS = 32
"""So many are served even if the open files of some sessions are missing then."""
_FDS_BESIDE = 200
"""Listening, logs, files that are read for a moment, connections that are being closed for new ones (64 at most),
and the second descriptor of each half-closed connection (64 at most)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The open files that this process may have, and the connections and sessions for which they suffice."""

    fds: int | None
    """Open files. ``None``: without a limit."""
    connections: int
    sessions: int
    """``max_jobs``, or fewer if the open files do not suffice for all. Sessions beyond that are tried all the same."""


def fds_needed(pool: PoolOptions, server: ServerOptions | None = None) -> int:
    """Open files that the supervisor may need, with or without those of its API's connections."""
    # In a reload there are the idle processes of both the old code and the new.
    processes = pool.max_jobs + 2 * (pool.idle_ceiling + pool.max_concurrent_prewarms)
    return FDS_PER_PROCESS * processes + _FDS_BESIDE + (0 if server is None else server.max_connections)


def limits_of(fds: int | None, pool: PoolOptions, max_connections: int) -> Limits:
    """Share open files: sessions come first, but for the last few connections."""
    if fds is None:
        return Limits(None, max_connections, pool.max_jobs)
    connections = min(max_connections, max(fds - fds_needed(pool), FEWEST_CONNECTIONS))
    return Limits(fds, connections, min(pool.max_jobs, sessions_within(fds, pool, connections)))


def sessions_within(fds: int, pool: PoolOptions, connections: int = FEWEST_CONNECTIONS) -> int:
    """Return for how many sessions open files suffice, beside these connections. ``max_jobs`` does not count."""
    beside = fds_needed(pool) - FDS_PER_PROCESS * pool.max_jobs + connections
    return max((fds - beside) // FDS_PER_PROCESS, 0)
