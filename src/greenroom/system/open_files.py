"""Limit on open files: raised in the supervisor, restored in all processes below it, and lowered in sessions.

The usual soft limit of 1,024 protects programs that use select(2), which cannot handle larger fd numbers.
A user's program may use select(2), and runs below the zygote.

The kernel counts the fds that are in flight (unix(7), ETOOMANYREFS) for each user, and refuses another one if they are
more than the sender's limit on open files. So a session could keep the supervisor and the zygote from handing over fds.
Sessions have a lower hard limit than these two, and are refused first.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keep_back", "original_soft_limit", "raise_soft_limit", "raised", "restore"]

_KEPT_BACK = 4096
"""Fds that only processes outside of sessions can have in flight. A session sends 253 at most at once (SCM_MAX_FD)."""

_original: int | None = None


def raise_soft_limit() -> tuple[int, int]:
    """Raise this process's soft limit to the hard limit. Return the old soft limit, and the hard limit.

    Raises ``OSError`` or ``ValueError``.
    """
    global _original
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _original = soft
    return soft, hard


def original_soft_limit() -> int | None:
    """Return the soft limit before :func:`raise_soft_limit` raised it; ``None`` if it was not raised."""
    return _original


def restore(soft: int | None) -> None:
    """Set the soft limit back, in a process that has inherited the raised one."""
    if soft is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def raised() -> Iterator[None]:
    """Raise this process's soft limit to the hard limit, and set it back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def keep_back() -> None:
    """Lower the limits of this process, by a quarter of the hard limit at most. The hard limit cannot be raised again.

    Without a hard limit, do nothing.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        most = hard - min(_KEPT_BACK, hard // 4)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, most), most))
