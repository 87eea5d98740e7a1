"""Scrapes of the metrics, and the wait for one more at the end.

What is counted in a worker's last seconds, such as calls that a drain has cut, is only known if Prometheus scrapes once
more. So the worker waits for that, if there is something to see and a scraper that comes often enough.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from ...pool import ProcessPool
from ...pool.events import Event, ProcessEnded, TurnedDown

__all__ = ["LONGEST_WAIT", "Scrapes"]

LONGEST_WAIT = 16.0
"""Seconds that the end of a worker waits for a scrape. A scraper with a longer interval may miss the last counts."""
_PATIENCE, _MARGIN = 1.5, 1.0
"""Wait for a scrape: this many intervals between the last two scrapes, and seconds more."""


class Scrapes:
    """Times of the last two scrapes, and whether anything was counted since."""

    def __init__(self, pool: ProcessPool) -> None:
        self._at: float | None = None
        self._interval: float | None = None
        self._has_news = False
        self._came = asyncio.Event()
        pool.subscribe(self._on_event)

    def note(self) -> None:
        """Note a scrape."""
        now = time.monotonic()
        if self._at is not None:
            self._interval = now - self._at
        self._at, self._has_news = now, False
        self._came.set()

    async def one_more(self) -> None:
        """Wait until all that was counted is scraped. Return at once if nobody scrapes, or if nothing is new."""
        if not self._has_news or self._interval is None:
            return
        self._came.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._came.wait(), min(_PATIENCE * self._interval + _MARGIN, LONGEST_WAIT))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, TurnedDown) or (isinstance(event, ProcessEnded) and event.report.job_id is not None):
            self._has_news = True
