"""The operating system's limits on this process."""

from __future__ import annotations

import logging
import resource

from ..options import PoolOptions
from ..system import open_files

__all__ = ["fds_needed", "raise_fd_limit"]

_logger = logging.getLogger("greenroom")

FDS_PER_PROCESS = 7
"""Control and log socket, stdout, stderr, lifeline, pidfd; and one more while it is made or dumped."""
_FDS_BESIDE = 100


def fds_needed(options: PoolOptions) -> int:
    """Open files that the supervisor may need."""
    processes = options.max_jobs + options.idle_ceiling + options.max_concurrent_prewarms
    return FDS_PER_PROCESS * processes + _FDS_BESIDE


def raise_fd_limit(options: PoolOptions) -> None:
    """Raise the soft limit on open files to the hard one.

    The supervisor holds about seven for each process, so that the usual soft limit of 1,024 ends at some
    140 processes. It is that low for programs that use select(2), which this one does not.
    """
    try:
        _, hard = open_files.raise_soft_limit()
    except (OSError, ValueError) as error:  # a hard limit above fs.nr_open, for one
        hard, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        _logger.warning("the limit on open files stays at %d: %s", hard, error)
    needed = fds_needed(options)
    if hard != resource.RLIM_INFINITY and hard < needed:
        _logger.warning(
            "the limit on open files is %d, but max_jobs=%d may need %d; raise it (ulimit -Hn, LimitNOFILE=)",
            hard,
            options.max_jobs,
            needed,
        )
