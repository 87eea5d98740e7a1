"""Limits of the machine: open files for jobs and connections, and free memory for a further job."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable
from pathlib import Path

from ...log_fields import log_fields
from ...options import PoolOptions
from ...pool import PoolStats
from ...settings.open_files import Limits, fds_needed, limits_of
from ...settings.worker_options import ServerOptions
from ...system import open_files
from ...system.machine_memory import MemoryGauge

__all__ = ["MemoryRoom", "apply_limits", "shortage"]

_logger = logging.getLogger("greenroom")


def apply_limits(pool: PoolOptions, server: ServerOptions) -> Limits:
    """Raise the soft limit on open files to the hard limit. Log and return the jobs and connections that it allows.

    The supervisor holds about 8 file descriptors for each process. So the usual soft limit of 1,024 is reached at some
    120 processes. The limit is that low for programs that use select(2), and this program does not use select(2).
    """
    limits = limits_of(_raised(), pool, server.max_connections)
    extra = log_fields("limits", connections=limits.connections, sessions=limits.sessions, fds=limits.fds)
    text = "open files suffice for %d connections and %d sessions (limit: %s)"
    files = "unlimited" if limits.fds is None else str(limits.fds)
    _logger.info(text, limits.connections, limits.sessions, files, extra=extra)
    if limits.sessions < pool.max_jobs:
        _warn(limits, pool, server)
    _warn_of_narrow_proc()
    return limits


def _warn_of_narrow_proc() -> None:
    if not Path("/proc/meminfo").exists():
        text = (
            "/proc shows only processes (ProcSubset=pid): the free memory, the OOM kills and the load of the machine "
            "are not known. min_free_memory_mb is checked against cgroups that have a limit (MemoryMax=). Without such "
            "a limit, min_free_memory_mb has no effect"
        )
        _logger.warning(text, extra=log_fields("narrow_proc"))


def _raised() -> int | None:
    try:
        _, limit = open_files.raise_soft_limit()
    except (OSError, ValueError) as error:  # such as a hard limit above fs.nr_open
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        extra = log_fields("fd_limit_kept", fds=limit, cause=str(error))
        _logger.warning("the limit on open files stays at %d: %s", limit, error, extra=extra)
    return None if limit == resource.RLIM_INFINITY else limit


def _warn(limits: Limits, pool: PoolOptions, server: ServerOptions) -> None:
    needed = fds_needed(pool, server)
    text = (
        "the limit on open files is %d, but max_jobs=%d may need %d, connections included. The limit is enough for "
        "%d sessions. Raise the limit (ulimit -Hn, LimitNOFILE=), or lower max_jobs"
    )
    extra = log_fields("too_few_fds", fds=limits.fds, sessions=limits.sessions, max_jobs=pool.max_jobs, needed=needed)
    _logger.warning(text, limits.fds, pool.max_jobs, needed, limits.sessions, extra=extra)


FRESH = 0.1
"""Seconds for which one reading of the machine's memory is used. Many offers can come at the same moment."""


class MemoryRoom:
    """Check of the memory that is available for a further job, by the memory that jobs have taken so far.

    Tests pass in ``available``.
    """

    def __init__(self, min_free_mb: float | None, available: Callable[[], float] | None = None) -> None:
        self._min_free_mb = min_free_mb
        self._available = available or MemoryGauge().available_mb
        self._read = 0.0
        self._read_at = float("-inf")

    def problem(self, stats: PoolStats) -> str | None:
        """Return why there is no memory for a further job; ``None`` if there is enough, or if the check is off."""
        if self._min_free_mb is None:
            return None
        session_mb = stats.session_mb or 0.0  # None before the first sample; min_free_memory_mb holds even then
        try:
            available = self._available_lately()
        except FileNotFoundError:
            return None  # not known here, as apply_limits has logged
        except OSError as error:  # such as no free fd: then a process could not start, either
            return f"the available memory cannot be read: {error}"
        if shortage(available, session_mb, stats.expected_growth_mb, self._min_free_mb) <= 0:
            return None
        return (
            f"{available:.0f} MiB of memory are available; one more session takes about {session_mb:.0f} MiB, "
            f"running sessions may take {stats.expected_growth_mb:.0f} MiB more, "
            f"and {self._min_free_mb:g} MiB (min_free_memory_mb) must stay free"
        )

    def further_sessions(self, stats: PoolStats) -> int | None:
        """Return for how many more sessions there is memory; ``None`` if that is not known, or if the check is off."""
        if self._min_free_mb is None or not stats.session_mb:
            return None
        try:
            free = -shortage(self._available_lately(), 0.0, stats.expected_growth_mb, self._min_free_mb)
        except OSError:
            return None
        return max(int(free / stats.session_mb), 0)

    def available_mb(self) -> float | None:
        """Return the memory (MiB) that is available, also if the check is off; ``None`` if that is not known."""
        try:
            return self._available_lately()
        except OSError:
            return None

    def _available_lately(self) -> float:
        now = time.monotonic()
        if now - self._read_at > FRESH:
            self._read, self._read_at = self._available(), now
        return self._read


def shortage(available_mb: float, session_mb: float, growth_mb: float, min_free_mb: float) -> float:
    """Return the MiB of memory that are missing for one more job; 0 or less if there is enough. Pure."""
    return session_mb + growth_mb + min_free_mb - available_mb
