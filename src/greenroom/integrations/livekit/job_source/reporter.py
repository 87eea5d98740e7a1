"""Reporter of this worker's load to the servers, at once after a change, and every 2.5 s."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from . import livekit_protocol
from .livekit_connection import Connection
from .load_report import Load

__all__ = ["Reporter"]

PERIOD = 2.5
"""Seconds between two regular reports, as in LiveKit's own worker."""
SHORTEST = 0.05
"""Least number of seconds between two reports, since a burst of sessions changes the load very often."""


class Reporter:
    """Reporter of the load. ``look`` returns the current load."""

    def __init__(self, look: Callable[[], Load], connections: Iterable[Connection]) -> None:
        self._look = look
        self._connections = connections
        self._perhaps_changed = asyncio.Event()
        self._reported: Load | None = None

    def notify(self) -> None:
        """Report soon, if the load has changed."""
        self._perhaps_changed.set()

    def report(self, connection: Connection) -> None:
        """Report the load to one server, which has no report yet."""
        connection.send(_message(self._look()))

    def report_all(self) -> None:
        load = self._reported = self._look()
        for connection in self._connections:
            connection.send(_message(load))

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + PERIOD
        while True:
            with suppress(TimeoutError):  # then a regular report is due
                async with asyncio.timeout_at(due):
                    await self._perhaps_changed.wait()
            self._perhaps_changed.clear()
            if loop.time() >= due or self._look() != self._reported:
                self.report_all()
                due = loop.time() + PERIOD
            await asyncio.sleep(SHORTEST)


def _message(load: Load) -> bytes:
    return livekit_protocol.worker_status(available=load.available, load=load.value, job_count=load.jobs)
