"""Search by which the lists are filtered. The workers search, again and again, so the answer stays fresh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..client import Answer, Client, Refused
from ..job_requests import find_jobs, in_order
from ..printing import Failure
from ..workers import Workers
from .listing import Found, ref_of
from .watched import Watched

__all__ = ["Finder"]

MOST_FOUND = 400
_REFRESH_SECONDS = 2.0


class Finder:
    """Filter of the lists. ``wake`` is called after each change."""

    def __init__(self, workers: Workers, watched: Sequence[Watched], wake: Callable[[], None]) -> None:
        self.found: Found | None = None
        """Jobs that match; ``None`` without a filter."""
        self._workers = workers
        self._watched = watched
        self._wake = wake
        self._searches = 0
        """Number of searches so far, with which an answer is recognised that comes too late."""

    async def search(self, words: str) -> bool:
        """Filter by these words. Return false if another search came meanwhile.

        Raises :class:`Failure` if a worker does not understand the words, or if none answers. The filter is then as it
        was before.
        """
        self._searches += 1
        return await self._ask(words, self._searches)

    def clear(self) -> None:
        """Remove the filter."""
        self._searches += 1
        self.found = None
        self._wake()

    async def run(self) -> None:
        """Repeat the search of the present filter until cancelled."""
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            if self.found is not None:
                with suppress(Failure):  # the lists stay as they are, and the view shows that the worker is gone
                    await self._ask(self.found.words, self._searches)

    async def _ask(self, words: str, number: int) -> bool:
        replies = await self._workers.ask_each(lambda client: self._ask_one(client, words))
        for _, failure in replies.failures:
            if isinstance(failure, Refused) and failure.status == 400:
                raise failure
        if number != self._searches:
            return False
        answers = [[] if isinstance(one.answer, Failure) else one.answer.body["jobs"] for one in replies.each]
        jobs = in_order({**job, "worker": place} for place, found in enumerate(answers) for job in found)
        latest = jobs[-MOST_FOUND:]
        is_cut = len(jobs) > len(latest) or any(len(found) >= MOST_FOUND for found in answers)
        self.found = Found(words, {ref_of(job): job for job in latest}, is_cut=is_cut)
        self._wake()
        return True

    async def _ask_one(self, client: Client, words: str) -> Answer:
        silent = [worker.loss is not None for worker in self._watched]
        # A worker that stands still would hold up what the others have found.
        if silent[self._workers.clients.index(client)] and not all(silent):
            raise Failure("the worker does not answer")
        return await find_jobs(client, words, MOST_FOUND)
