"""Clock of a connection for the body of its present request."""

from __future__ import annotations

import asyncio
import math

from .bodies import BODY_RATE, BODY_SECONDS

__all__ = ["BodyClock"]

_PROGRESS = 0.1
"""Seconds that a body must have gained before its deadline is moved."""


class BodyClock:
    """Time that a client has for the body of a request: ``BODY_SECONDS``, and 1 s for each ``BODY_RATE`` bytes.

    The clock stands still while bytes wait for their turn to be parsed, since the client cannot help that.

    A request calls :meth:`timeout`, then :meth:`run` inside this timeout, :meth:`finish` when its body is complete, and
    :meth:`end` when it is answered.
    """

    __slots__ = ("_is_cut_short", "_loop", "_started", "_stopped_at", "_timeout")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timeout: asyncio.Timeout | None = None
        self._started = 0.0
        """Time of the start, moved on by the time in which the clock stood still."""
        self._stopped_at = 0.0
        self._is_cut_short = False
        """True after :meth:`expire`: nothing moves the deadline any more."""

    @property
    def is_running(self) -> bool:
        """True while the body of a request is not complete."""
        return self._timeout is not None

    @property
    def is_overdue(self) -> bool:
        """True if the deadline has passed, also if the event loop has not handled it yet."""
        return self._timeout is not None and (self._timeout.when() or math.inf) < self._loop.time()

    def timeout(self, *, is_stopped: bool) -> asyncio.Timeout:
        """Start the clock. Return the timeout within which a request is to be handled."""
        self._started = self._loop.time()
        return asyncio.timeout_at(None if is_stopped else self._started + BODY_SECONDS)

    def run(self, timeout: asyncio.Timeout) -> None:
        """Take over a timeout that was entered."""
        self._timeout = timeout
        self._is_cut_short = False

    def stop(self) -> None:
        """Stand still until the bytes that have come are parsed."""
        now = self._stopped_at = self._loop.time()
        if self._timeout is not None and not self._is_cut_short and not self._timeout.expired():
            self._started += max(now - (self._timeout.when() or now), 0.0)
            self._timeout.reschedule(None)

    def go_on(self) -> None:
        """Do not count the time since :meth:`stop`. :meth:`note` then sets a deadline again."""
        self._started += self._loop.time() - max(self._stopped_at, self._started)

    def note(self, size: int) -> None:
        """Move the deadline, because ``size`` bytes of the body have come so far."""
        if self._timeout is None or self._is_cut_short or self._timeout.expired():
            return
        due = self._started + BODY_SECONDS + size / BODY_RATE
        when = self._timeout.when()
        if when is None or due - when >= _PROGRESS:
            self._timeout.reschedule(due)

    def expire(self) -> None:
        """End the time of the client now."""
        self._is_cut_short = True
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(self._loop.time())

    def finish(self, timeout: asyncio.Timeout) -> None:
        """Switch the timeout off, because the body is complete. The timeout of an earlier request is left as it is."""
        if self._timeout is timeout:
            self._timeout = None
            if not timeout.expired():
                timeout.reschedule(None)

    def end(self) -> None:
        """Forget the request."""
        self._timeout = None
