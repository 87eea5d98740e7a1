"""Drain of a worker, and the wait for its end. The worker's events show the progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ..command_exit_codes import ExitCode
from ..options import PoolOptions
from ..settings.worker_options import longest_stop
from .client import Client, Event, Unreachable
from .printing import Failure

__all__ = ["End", "drain_and_wait", "longest_wait", "start_to_drain"]

_MARGIN = 15.0
"""Seconds beyond the worker's longest stop, for a busy machine."""
_RETRY = 0.1


@dataclass(slots=True)
class End:
    """Progress and result of a drain."""

    started: dict[str, Any] = field(default_factory=dict)
    cut_short: list[str] = field(default_factory=list)
    """Ids of the jobs that the worker ended because they did not end in time."""
    jobs: int | None = None

    def take(self, event: Event) -> bool:
        """Process an event. Return true if the number of jobs has changed."""
        if event.name == "JobEnded" and event.data["report"]["reason"] == "drained":
            self.cut_short.append(event.data["report"]["job_id"])
        stats = event.data["stats"] if event.name in ("board", "Levels") else None
        before, self.jobs = self.jobs, stats["jobs"] if stats else self.jobs
        return self.jobs != before


async def start_to_drain(client: Client, timeout: float | None) -> dict[str, Any]:
    body = {} if timeout is None else {"timeout": timeout}
    started: dict[str, Any] = (await client.post("/v1/pool/drain", body)).body
    return started


async def drain_and_wait(client: Client, timeout: float | None, report: Callable[[str], None]) -> End:
    """Drain a worker, and return when the worker has ended.

    ``report`` gets a line at each change of the number of jobs. Raises :class:`Failure` if the worker does not end in
    time.
    """
    end = End()
    async with aclosing(client.events()) as events:
        # Open the stream before the drain, so that no event of the drain is missed.
        board = await anext(events)
        end.started = await start_to_drain(client, timeout)
        longest = longest_wait(end.started["timeout"], board.data["options"])
        try:
            async with asyncio.timeout(longest):
                await _follow(end, board, events, report)
                await _until_gone(client)
        except TimeoutError:
            message = f"the worker at {client.url} has not ended, although all its deadlines have passed. See its log"
            raise Failure(message, ExitCode.NEGATIVE) from None
    return end


def longest_wait(timeout: float, options: dict[str, Any]) -> float:
    """Return the seconds within which a worker with these pool options must end. ``timeout`` is the drain's."""
    pool = PoolOptions(shutdown_timeout=options["shutdown_timeout"], cleanup_timeout=options["cleanup_timeout"])
    return longest_stop(pool, timeout) + _MARGIN


async def _follow(end: End, board: Event, events: AsyncIterator[Event], report: Callable[[str], None]) -> None:
    end.take(board)
    report(f"draining: {end.jobs or 0} jobs may go on for {end.started['timeout']:g} s")
    try:
        async for event in events:
            if end.take(event):
                report(f"draining: {end.jobs} jobs are left")
    except Unreachable:
        return  # the worker may have been killed; the caller checks next that the worker has ended


async def _until_gone(client: Client) -> None:
    """Wait until the worker no longer answers, or until another worker at its address is not draining."""
    while True:
        try:
            ready = await client.get("/readyz", accepted=(503,))
        except Unreachable:
            return
        if ready.body.get("reason") != "draining":
            return
        await asyncio.sleep(_RETRY)
