"""Updates of the job that the view shows alone, until its end, also after a loss of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from ..client import Client
from ..job_requests import follow_log, job_after
from ..printing import Failure
from .opened_job import OpenedJob

__all__ = ["JobFeed"]

_REFRESH_SECONDS = 1.0
"""Longest time between two answers about a live job. Its end is answered at once."""
_AGAIN_SECONDS = 2.0
"""Wait after a request that has failed."""


class JobFeed:
    """Reader of a job and its log. The reader updates the pages, and calls ``wake`` after each change."""

    def __init__(self, client: Client, job: OpenedJob, wake: Callable[[], None]) -> None:
        self._client = client
        self._job = job
        self._wake = wake

    async def run(self) -> None:
        """Update the pages until the end of the job, or until cancelled."""
        await asyncio.gather(self._to_its_end(self._read_job), self._to_its_end(self._read_log))

    async def _to_its_end(self, read: Callable[[], Awaitable[None]]) -> None:
        """Read again after each failure: the worker may come back, and a history on disk knows the job then."""
        while True:
            try:
                await read()
            except Failure as error:
                self._job.problem = str(error)
                self._wake()
            else:
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _read_job(self) -> None:
        wait = 0.0
        while not self._job.has_ended:
            self._job.update(await job_after(self._client, self._job.id, wait))
            self._wake()
            wait = _REFRESH_SECONDS

    async def _read_log(self) -> None:
        lines = follow_log(self._client, self._job.id, self._job.last_line, to_end=True)
        async with aclosing(lines):
            async for line in lines:
                self._job.add_line(line)
                self._wake()
