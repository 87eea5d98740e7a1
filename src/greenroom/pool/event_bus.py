"""Delivery of a pool's events to its subscribers.

Events are delivered in order, in a later turn of the event loop than the change itself. So a subscriber cannot
delay the start of a job, or call the pool in the middle of a change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..log_fields import log_fields
from .events import Event

__all__ = ["EventBus"]

_logger = logging.getLogger("greenroom")


class EventBus:
    """Queue of events for the subscribers, for use on one event loop."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Event], object]] = []
        self._pending: list[Event] = []

    def subscribe(self, fn: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``fn`` with each event from now on. Return a function that ends this."""
        self._subscribers.append(fn)

        def unsubscribe() -> None:
            if fn in self._subscribers:
                self._subscribers.remove(fn)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Deliver an event in the next turn of the event loop."""
        if not self._subscribers:
            return
        if not self._pending:
            asyncio.get_running_loop().call_soon(self.flush)
        self._pending.append(event)

    def flush(self) -> None:
        """Deliver now all events that were published so far."""
        events, self._pending = self._pending, []
        for event in events:
            for fn in list(self._subscribers):
                try:
                    fn(event)
                except Exception:
                    # An error in one subscriber must not affect the other subscribers, nor the pool.
                    _logger.exception("%r failed at %r", fn, event, extra=log_fields("internal_error"))
