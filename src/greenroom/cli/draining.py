"""Draining a worker and waiting for its end, by the events that it tells until then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ..exit_codes import ExitCode
from .client import Client, Event, Unreachable
from .failure import Failure

__all__ = ["End", "drain_and_wait", "start_to_drain"]

_MARGIN = 30.0
"""Seconds beyond all the worker's own deadlines."""
_RETRY = 0.1


@dataclass(slots=True)
class End:
    """How a drain went."""

    started: dict[str, Any] = field(default_factory=dict)
    cut_short: list[str] = field(default_factory=list)
    """Ids of the jobs that did not end in time, and were ended."""
    jobs: int | None = None

    def take(self, event: Event) -> bool:
        """Follow an event; returns whether there are more or fewer jobs than before."""
        if event.name == "JobEnded" and event.data["report"]["reason"] == "drained":
            self.cut_short.append(event.data["report"]["job_id"])
        stats = event.data["stats"] if event.name in ("board", "Levels") else None
        before, self.jobs = self.jobs, stats["jobs"] if stats else self.jobs
        return self.jobs != before


async def start_to_drain(client: Client, timeout: float | None) -> dict[str, Any]:
    body = {} if timeout is None else {"timeout": timeout}
    started: dict[str, Any] = (await client.post("/v1/pool/drain", body)).body
    return started


async def drain_and_wait(client: Client, timeout: float | None, tell: Callable[[str], None]) -> End:
    """Returns when the worker has ended; ``tell`` gets a line whenever the number of its jobs changes."""
    end = End()
    async with aclosing(client.events()) as events:
        # The stream comes first, so that nothing of what the drain does is missed.
        board = await anext(events)
        end.started = await start_to_drain(client, timeout)
        longest = _longest(end.started["timeout"], board.data["options"])
        try:
            async with asyncio.timeout(longest):
                await _follow(end, board, events, tell)
                await _until_gone(client)
        except TimeoutError:
            message = f"the worker at {client.url} has not ended, although all its deadlines have passed; see its log"
            raise Failure(message, ExitCode.NEGATIVE) from None
    return end


def _longest(timeout: float, options: dict[str, Any]) -> float:
    return float(timeout + options["shutdown_timeout"] + options["cleanup_timeout"] + _MARGIN)


async def _follow(end: End, board: Event, events: AsyncIterator[Event], tell: Callable[[str], None]) -> None:
    end.take(board)
    tell(f"draining: {end.jobs or 0} jobs may go on for {end.started['timeout']:g} s")
    try:
        async for event in events:
            if end.take(event):
                tell(f"draining: {end.jobs} jobs are left")
    except Unreachable:
        return  # a worker that is killed meanwhile has ended, too; whether it has is asked for next


async def _until_gone(client: Client) -> None:
    """Until it does not answer any more, or another one in its place takes sessions."""
    while True:
        try:
            ready = await client.get("/readyz", accepted=(503,))
        except Unreachable:
            return
        if ready.body.get("reason") != "draining":
            return
        await asyncio.sleep(_RETRY)
