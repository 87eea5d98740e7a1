"""Samples of the private memory of processes, a few processes at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from ...system import proc
from ..core import vocabulary as v
from .child_client import ChildClient
from .tools import Report
from .walks import Walks

__all__ = ["MemorySampler"]


class MemorySampler:
    """Sampler of one idle and one running process in each look.

    To walk the page tables of a process takes 1 ms, or about 12 ms for a large process. So a thread does that.
    """

    def __init__(self, report: Report, walks: Walks) -> None:
        self._report = report
        self._walks = walks
        self._turns: tuple[deque[str], deque[str]] = (deque(), deque())
        self._is_looking = False

    def look(self, kinds: Iterable[dict[str, ChildClient]]) -> None:
        """Sample the next process of each kind, in turn.

        Do nothing while the samples before are not there yet, or the thread has no CPU time for samples.
        """
        if self._is_looking or not self._walks.has_spare_time():
            return
        chosen = [child for turns, there in zip(self._turns, kinds, strict=True) if (child := _next(turns, there))]
        if chosen:
            future = self._walks.run_in_spare_time(_sizes, [child.live_pid for child in chosen])
            self._is_looking = True
            future.add_done_callback(lambda done: self._seen(chosen, done))

    def _seen(self, chosen: list[ChildClient], done: asyncio.Future[list[float | None]]) -> None:
        self._is_looking = False
        if done.cancelled() or done.exception() is not None:
            return
        for child, size in zip(chosen, done.result(), strict=True):
            if size is not None and not child.is_dead:
                self._report(v.Measured(child.id, size))


def _next(turns: deque[str], there: dict[str, ChildClient]) -> ChildClient | None:
    if not turns:
        turns.extend(there)
    while turns:
        child = there.get(turns.popleft())
        if child is not None:
            return child
    return None


def _sizes(pids: list[int]) -> list[float | None]:
    return [_size(pid) for pid in pids]


def _size(pid: int) -> float | None:
    try:
        return proc.private_mb(pid)
    except OSError:
        return None  # the process is gone, or runs as another user: unknown memory is not counted
