"""Limit on open files: raised in the supervisor, and restored in all processes below it.

The usual soft limit of 1,024 protects programs that use select(2), which cannot handle larger fd numbers.
A user's program may use select(2), and runs below the zygote.
"""

from __future__ import annotations

import resource

__all__ = ["original_soft_limit", "raise_soft_limit", "restore"]

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
