"""Number of open files that settings need, and number of jobs that a limit on open files allows. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import PoolOptions
from .worker_options import ServerOptions

__all__ = ["FDS_PER_PROCESS", "FEWEST_CONNECTIONS", "Limits", "fds_needed", "limits_of", "sessions_within"]

FDS_PER_PROCESS = 8
"""Open files of the supervisor for each process: control socket, log socket, stdout, stderr, lifeline, heartbeat page
and pidfd. One more is open while the process is made, or while its stacks are dumped."""
FEWEST_CONNECTIONS = 32
"""API connections that are always served, even if the remaining open files then do not suffice for all jobs."""
_FDS_BESIDE = 200
"""Other open files: listening sockets, logs, and files that are read for a moment. Also up to 64 connections that
are closed for new ones, and the second descriptor of each half-closed connection (64 at most)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limit on open files, and the numbers of connections and jobs for which the limit suffices."""

    fds: int | None
    """Most open files of this process; ``None`` if there is no limit."""
    connections: int
    sessions: int
    """``max_jobs``, or fewer if the open files do not suffice for all. The worker still tries jobs beyond that."""


def fds_needed(pool: PoolOptions, server: ServerOptions | None = None) -> int:
    """Return the number of open files that the supervisor may need. With ``server``, API connections are included."""
    # During a reload, the idle processes of the old and of the new code exist at the same time.
    processes = pool.max_jobs + 2 * (pool.idle_ceiling + pool.max_concurrent_prewarms)
    return FDS_PER_PROCESS * processes + _FDS_BESIDE + (0 if server is None else server.max_connections)


def limits_of(fds: int | None, pool: PoolOptions, max_connections: int) -> Limits:
    """Divide the open files. Jobs come first, but :data:`FEWEST_CONNECTIONS` connections are always kept."""
    if fds is None:
        return Limits(None, max_connections, pool.max_jobs)
    connections = min(max_connections, max(fds - fds_needed(pool), FEWEST_CONNECTIONS))
    return Limits(fds, connections, min(pool.max_jobs, sessions_within(fds, pool, connections)))


def sessions_within(fds: int, pool: PoolOptions, connections: int = FEWEST_CONNECTIONS) -> int:
    """Return the number of jobs for which open files suffice, beside these connections, without regard to ``max_jobs``.

    The idle and warming processes are subtracted.
    """
    beside = fds_needed(pool) - FDS_PER_PROCESS * pool.max_jobs + connections
    return max((fds - beside) // FDS_PER_PROCESS, 0)
