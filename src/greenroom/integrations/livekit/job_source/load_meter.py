"""Meter of the app's load: calls ``load_fnc`` twice a second, and before the answer to an offer."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress

from ....backoff import backoff
from ....errors import GreenroomError
from ....log_fields import log_fields
from ....sources import NoAnswer, ResidentProcess
from ..job_order import LOAD

__all__ = ["INTERVAL", "PATIENCE", "TIMEOUT", "LoadMeter"]

_logger = logging.getLogger("greenroom.livekit")

INTERVAL = 0.5
"""Seconds from one call of the function to the next, as in LiveKit's own worker."""
TIMEOUT = 2.5
"""Seconds for one call. LiveKit's own worker reports its load once in this time."""
PATIENCE = 1.0
"""Seconds that an offer waits for a fresh load. The server gives all workers 2.8 s together."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds without a call after one that has killed the resident process. The request hook runs there, too."""


class LoadMeter:
    """Last load of the app, or the problem if the app gives none. One call is made at a time.

    ``count_reserved`` counts the jobs that passed the gate and are not launched yet. ``on_change`` is called after
    each call.
    """

    def __init__(
        self, resident: ResidentProcess, count_reserved: Callable[[], int], on_change: Callable[[], object]
    ) -> None:
        self.value: float | None = None
        """Last load; ``None`` if the app has no ``load_fnc``, or if the function gives no load."""
        self.problem: str | None = None
        """Reason why the function gives no load."""
        self._resident = resident
        self._count_reserved = count_reserved
        self._on_change = on_change
        self._is_wanted = asyncio.Event()
        self._call: asyncio.Task[None] | None = None
        self._lost = 0
        """Number of successive calls that have killed the resident process."""
        self._paused_until = 0.0
        self._code = 0
        """Number that goes up when other code may serve."""

    @property
    def is_wanted(self) -> bool:
        """True if the app that serves has a ``load_fnc``."""
        return self._is_wanted.is_set()

    def reset(self) -> None:
        """Start anew, since other code may serve. The last load holds until the new function gives one."""
        self.problem = None
        self._lost, self._paused_until = 0, 0.0
        self._code += 1
        if self._resident.takes(LOAD):
            self._is_wanted.set()
        else:
            self._is_wanted.clear()
            self.value = None

    def stop(self) -> None:
        """Stop the calls: the worker takes no more jobs."""
        self._is_wanted.clear()

    async def run(self) -> None:
        """Call the function again and again, while :attr:`is_wanted`. Ends only when it is cancelled."""
        while True:
            await self._is_wanted.wait()
            began = time.monotonic()
            await self._call_once()
            await asyncio.sleep(max(INTERVAL - (time.monotonic() - began), INTERVAL / 10))

    async def refresh(self) -> None:
        """Get a fresh load, if the app gives one within :data:`PATIENCE` seconds. Otherwise the last load holds."""
        if not self.is_wanted or self.problem is not None:
            return  # an offer does not wait for a function that fails; run() finds out when it works again
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                if self._call is not None:
                    await asyncio.wait({self._call})  # this call began earlier, so its load is not fresh
                await self._call_once()

    async def _call_once(self) -> None:
        """Wait for a call that begins now, or for one that another caller has just begun."""
        if self._call is None:
            self._call = asyncio.create_task(self._ask(), name="greenroom-livekit-load-fnc")
            self._call.add_done_callback(self._is_over)
        await asyncio.wait({self._call})  # _is_over() logs its error

    def _is_over(self, call: asyncio.Task[None]) -> None:
        self._call = None
        if not call.cancelled() and call.exception() is not None:
            _logger.error("load_fnc could not be called", exc_info=call.exception(), extra=log_fields("internal_error"))

    async def _ask(self) -> None:
        if time.monotonic() < self._paused_until:
            return
        code, value = self._code, 0.0
        problem: GreenroomError | None = None
        try:
            value = _checked(await self._resident.ask(LOAD, {"reserved": self._count_reserved()}, timeout=TIMEOUT))
        except GreenroomError as error:
            problem = error
        if code != self._code or not self.is_wanted:
            return  # the load is that of the code before, or is not wanted any more
        if problem is None:
            self._succeeded(value)
        else:
            self._failed(str(problem), was_lost=isinstance(problem, NoAnswer) and problem.was_lost)
        self._on_change()

    def _succeeded(self, value: float) -> None:
        if self.problem is not None:
            text = "load_fnc gives a load again (%g), which limits the worker"
            _logger.info(text, value, extra=log_fields("load_fnc_recovered", load=value))
        self.value, self.problem, self._lost = value, None, 0

    def _failed(self, cause: str, *, was_lost: bool) -> None:
        """Note a failure. Logs the first failure after a success."""
        if was_lost:
            self._lost += 1
            pause = backoff(self._lost, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
            self._paused_until = time.monotonic() + pause
        if self.problem is None:
            text = "load_fnc gives no load: %s. Meanwhile the load is counted in slots, and max_jobs is the limit"
            _logger.warning(text, cause, extra=log_fields("load_fnc_failed", cause=cause))
        self.value, self.problem = None, cause


def _checked(value: object) -> float:
    """Return a load. Raises :class:`GreenroomError` for any other value: user code runs in the sending process."""
    if isinstance(value, (int, float)) and math.isfinite(value) and value >= 0:
        return float(value)
    raise GreenroomError(f"the resident process sent {str(value)[:80]!r}, which is no load")
