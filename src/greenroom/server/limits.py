"""The operating system's limit on open files, shared between sessions and connections."""

from __future__ import annotations

import logging
import resource
from pathlib import Path

from ..log_fields import log_fields
from ..options import PoolOptions
from ..settings.open_files import Limits, fds_needed, limits_of
from ..settings.server import ServerOptions
from ..system import open_files

__all__ = ["apply_limits"]

_logger = logging.getLogger("greenroom")


def apply_limits(pool: PoolOptions, server: ServerOptions) -> Limits:
    """Raise the soft limit on open files to the hard one, and log for what it suffices.

    The supervisor holds about eight for each process, so that the usual soft limit of 1,024 ends at some
    120 processes. It is that low for programs that use select(2), which this one does not.
    """
    limits = limits_of(_raised(), pool, server.max_connections)
    extra = log_fields("limits", connections=limits.connections, sessions=limits.sessions, fds=limits.fds)
    text = "open files suffice for %d connections and %d sessions (limit: %s)"
    files = "unlimited" if limits.fds is None else str(limits.fds)
    _logger.info(text, limits.connections, limits.sessions, files, extra=extra)
    if limits.sessions < pool.max_jobs:
        _warn(limits, pool, server)
    _tell_of_narrow_proc()
    return limits


def _tell_of_narrow_proc() -> None:
    if not Path("/proc/meminfo").exists():
        text = (
            "/proc shows processes alone (ProcSubset=pid): the machine's free memory, its OOM kills and its load are "
            "not known. Sessions are taken by the memory of cgroups that have a limit (MemoryMax=), or else without "
            "regard to min_free_memory_mb"
        )
        _logger.warning(text, extra=log_fields("narrow_proc"))


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
