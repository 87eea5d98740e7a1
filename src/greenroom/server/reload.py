"""Reloads of the app, one at a time: on request, and when a source file changes."""

from __future__ import annotations

import asyncio
import importlib.machinery
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import AppLoadError, PoolClosed, PrewarmError
from ..log_fields import log_fields
from ..pool import ProcessPool
from ..system.working_folder import WorkingFolder

__all__ = ["Reloader", "source_folder", "watch"]

_logger = logging.getLogger("greenroom")


@dataclass
class _Turn:
    """Reload that is under way or next, with its causes and the number of callers that wait for its result."""

    causes: list[str]
    task: asyncio.Task[int]
    waiting: int = 0


class Reloader:
    """Reloader of the pool.

    Requests that come during a reload share one further reload. The present reload may have read the code before the
    change that caused such a request.
    """

    def __init__(self, pool: ProcessPool, around: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._pool = pool
        self._around = around
        self._folder = WorkingFolder()
        self._cause = ""
        self._requested = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._next: _Turn | None = None  # the reload that has not begun

    def request(self, cause: str) -> None:
        self._cause = cause
        self._requested.set()

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            # The log has the cause of a failure. A pool that is being closed needs no new code.
            with suppress(AppLoadError, PrewarmError, PoolClosed):
                await self.reload(self._cause)

    async def reload(self, cause: str) -> int:
        """Reload now, or after the reload that is under way. Return the number of the new generation.

        Raises :class:`AppLoadError` or :class:`PrewarmError` if the reload has failed, and the old code goes on
        serving. Raises :class:`PoolClosed` if the pool is closed. The reload is given up if all callers that wait for
        it are cancelled.
        """
        turn = self._next
        if turn is None:
            causes: list[str] = []
            turn = self._next = _Turn(causes, asyncio.create_task(self._take_turn(causes), name="greenroom-reload"))
        turn.causes.append(cause)
        turn.waiting += 1
        try:
            return await asyncio.shield(turn.task)
        finally:
            turn.waiting -= 1
            if turn.waiting == 0 and not turn.task.done():
                await self._give_up(turn)

    async def _take_turn(self, causes: list[str]) -> int:
        async with self._one_at_a_time:
            self._next = None
            cause = "; ".join(dict.fromkeys(causes))
            _logger.info("reloading: %s", cause, extra=log_fields("reloading", cause=cause))
            with self._around(), self._folder.followed():
                await self._pool.reload()
            generation = self._pool.stats().generation
            assert generation is not None  # the reload has just set it
            return generation

    async def _give_up(self, turn: _Turn) -> None:
        if self._next is turn:
            self._next = None
        turn.task.cancel()
        await asyncio.wait([turn.task])


async def watch(folder: Path, reloader: Reloader, stop: asyncio.Event) -> None:
    """Request a reload when a Python source file in the folder changes, until ``stop`` is set."""
    from watchfiles import PythonFilter, awatch  # only `dev` needs watchfiles

    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    try:
        async for changes in awatch(folder, watch_filter=PythonFilter(), stop_event=stop):
            names = sorted({os.path.relpath(path, folder) for _, path in changes})
            reloader.request(f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''} changed")
    except OSError as error:  # mostly a limit of inotify
        extra = log_fields("watch_failed", cause=str(error))
        _logger.error("%s cannot be watched, so changes do not cause a reload: %s", folder, error, extra=extra)


def source_folder(app: str) -> Path | None:
    """Return the folder of the app's file, or of its top-level package; ``None`` if it is not found.

    No module is imported.
    """
    place = app.rpartition(":")[0] or app
    if place.endswith(".py") or os.sep in place:
        return Path(place).resolve().parent
    spec = importlib.machinery.PathFinder.find_spec(place.partition(".")[0], sys.path)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve().parent if spec.origin else None
