"""The operating system's limit on open files, shared between sessions and connections."""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass

from ..options import PoolOptions
from ..pool.log_fields import log_fields
from ..settings.server import ServerOptions
from ..system import open_files

__all__ = ["Limits", "apply_limits", "fds_needed", "limits_of"]

_logger = logging.getLogger("greenroom")

FDS_PER_PROCESS = 8
"""Control and log socket, stdout, stderr, lifeline, heartbeat page, pidfd; and one more while it is made or dumped."""
FEWEST_CONNECTIONS = 32
"""So many are served even if the open files of some sessions are missing then."""
_FDS_BESIDE = 200
"""Listening, logs, files that are read for a moment, connections that are being closed for new ones (64 at most),
and the second descriptor of each half-closed connection (64 at most)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The open files, connections and sessions that this process may have."""

    fds: int | None
    """Open files. ``None``: without a limit."""
    connections: int
    sessions: int
    """``max_jobs``, or fewer if it has no open files for more."""


def fds_needed(pool: PoolOptions, server: ServerOptions | None = None) -> int:
    """Open files that the supervisor may need, with or without those of its API's connections."""
    # In a reload there are the idle processes of both the old code and the new.
    processes = pool.max_jobs + 2 * (pool.idle_ceiling + pool.max_concurrent_prewarms)
    return FDS_PER_PROCESS * processes + _FDS_BESIDE + (0 if server is None else server.max_connections)


def limits_of(fds: int | None, pool: PoolOptions, max_connections: int) -> Limits:
    """Share open files: sessions come first, but for the last few connections. Pure."""
    if fds is None:
        return Limits(None, max_connections, pool.max_jobs)
    left = fds - fds_needed(pool)
    connections = min(max_connections, max(left, FEWEST_CONNECTIONS))
    missing = max(connections - left, 0)
    return Limits(fds, connections, max(pool.max_jobs - -(-missing // FDS_PER_PROCESS), 0))


def apply_limits(pool: PoolOptions, server: ServerOptions) -> Limits:
    """Raise the soft limit on open files to the hard one, and log what it allows.

    The supervisor holds about eight for each process, so that the usual soft limit of 1,024 ends at some
    120 processes. It is that low for programs that use select(2), which this one does not.
    """
    limits = limits_of(_raised(), pool, server.max_connections)
    extra = log_fields("limits", connections=limits.connections, sessions=limits.sessions, fds=limits.fds)
    text = "the limits allow %d connections and %d sessions (open files: %s)"
    files = "unlimited" if limits.fds is None else str(limits.fds)
    _logger.info(text, limits.connections, limits.sessions, files, extra=extra)
    if limits.sessions < pool.max_jobs:
        _warn(limits, pool, server)
    return limits


def _raised() -> int | None:
    try:
        _, limit = open_files.raise_soft_limit()
    except (OSError, ValueError) as error:  # a hard limit above fs.nr_open, for one
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        _logger.warning("the limit on open files stays at %d: %s", limit, error)
    return None if limit == resource.RLIM_INFINITY else limit


def _warn(limits: Limits, pool: PoolOptions, server: ServerOptions) -> None:
    needed = fds_needed(pool, server)
    text = (
        "the limit on open files is %d, but max_jobs=%d may need %d, connections included; it is enough for "
        "%d sessions. Raise it (ulimit -Hn, LimitNOFILE=), or lower max_jobs"
    )
    extra = log_fields("too_few_fds", fds=limits.fds, sessions=limits.sessions, max_jobs=pool.max_jobs, needed=needed)
    _logger.warning(text, limits.fds, pool.max_jobs, needed, limits.sessions, extra=extra)
