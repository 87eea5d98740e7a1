"""Whose an orphan may be that has shed its marks (:mod:`greenroom.system.mark`), by what it cannot shed so easily."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from contextlib import suppress

from . import proc

__all__ = ["group_of", "may_belong"]


def may_belong(pid: int, alive: Collection[int], dead: Collection[int] = ()) -> bool:
    """Tell whether one of these owners may have started it. Raises ``OSError`` when out of fds.

    Each owner leads a process group; and an orphan is younger than its owner.
    """
    group = group_of(pid)
    return group in alive or (group not in dead and any(_started(each) <= _started(pid) for each in alive))


def group_of(pid: int) -> int | None:
    with suppress(ProcessLookupError):  # gone
        return os.getpgid(pid)
    return None


def _started(pid: int) -> float:
    try:
        return proc.stat(pid).started
    except OSError as error:
        if proc.is_out_of_fds(error):
            raise
        return math.inf  # gone
