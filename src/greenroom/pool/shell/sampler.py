"""Samples of the private memory of processes, a few processes at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from functools import partial

from ...system import proc
from ..core import vocabulary as v
from .child_client import ChildClient
from .page_tables import PageTables
from .tools import Report

__all__ = ["MemorySampler"]


class MemorySampler:
    """Sampler of one idle and one running process in each look.

    To walk the page tables of a process takes 1 ms, or about 12 ms for a large process. So a thread does that.
    """

    def __init__(self, report: Report, page_tables: PageTables) -> None:
        self._report = report
        self._page_tables = page_tables
        self._turns: tuple[deque[str], deque[str]] = (deque(), deque())
        self._left = 0
        """Number of processes of this look that are not read yet."""

    def look(self, kinds: Iterable[dict[str, ChildClient]]) -> None:
        """Sample the next process of each kind, in turn.

        Do nothing while the samples before are not there yet, or the thread has no CPU time for samples.
        """
        if self._left or not self._page_tables.has_spare_time():
            return
        chosen = [child for turns, there in zip(self._turns, kinds, strict=True) if (child := _next(turns, there))]
        self._left = len(chosen)
        for child in chosen:
            reading = self._page_tables.run_in_spare_time(proc.private_mb, child.live_pid)
            reading.add_done_callback(partial(self._seen, child))

    def _seen(self, child: ChildClient, reading: asyncio.Future[float]) -> None:
        self._left -= 1
        # Unknown memory is not counted: the process is gone, or of another user, or cannot be read in time.
        if not reading.cancelled() and reading.exception() is None and not child.is_dead:
            self._report(v.Measured(child.id, reading.result()))


def _next(turns: deque[str], there: dict[str, ChildClient]) -> ChildClient | None:
    if not turns:
        turns.extend(there)
    while turns:
        child = there.get(turns.popleft())
        if child is not None:
            return child
    return None
