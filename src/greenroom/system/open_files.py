"""The limit on open files: raised for the supervisor, and as it was for everything below it.

A soft limit of 1,024 is there for programs that use select(2), which cannot cope with larger numbers;
those among the users' are below the zygote.
"""

from __future__ import annotations

import resource

__all__ = ["original_soft_limit", "raise_soft_limit", "restore"]

_original: int | None = None


def raise_soft_limit() -> tuple[int, int]:
    """Raise this process's soft limit to the hard one; returns both. Raises ``OSError`` or ``ValueError``."""
    global _original
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _original = soft
    return soft, hard


def original_soft_limit() -> int | None:
    """What the soft limit was before it was raised here; ``None`` if it was not."""
    return _original


def restore(soft: int | None) -> None:
    """Set the soft limit back, in a process that has inherited the raised one."""
    if soft is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
