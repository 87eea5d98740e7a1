"""Calls of the app's ``load_fnc``, as LiveKit makes them, in a thread. Each result is checked."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import threading
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

from ....zygote.app_thread import Outcome, outcome_of

__all__ = ["HIGHEST", "LoadError", "LoadFunction", "checked"]

_logger = logging.getLogger("greenroom.livekit")

HIGHEST = 1e6
"""Load above any threshold. It replaces ``math.inf``, which an app may return when it is full: JSON has no infinity."""


class LoadError(Exception):
    """Error of a ``load_fnc`` that has given no load. The text names the cause."""


class _Call(NamedTuple):
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Outcome]


class LoadFunction:
    """``load_fnc`` in a thread of its own, which makes one call at a time.

    The thread is a daemon, so a call that hangs does not keep the process from its end. The thread leaves out a call
    whose caller has given up, so no calls collect behind one that hangs. The thread ends with this object.
    """

    def __init__(self, function: Callable[..., Any], server: object) -> None:
        self._call = partial(_call, function, server)
        self._calls = SimpleQueue[_Call | None]()
        self._has_thread = False
        self._has_failed = False

    async def evaluate(self) -> float:
        """Return the load. Raises :class:`LoadError` if the function raises, or returns no load."""
        if not self._has_thread:
            self._has_thread = True
            threading.Thread(target=_run, args=(self._calls, self._call), name="load_fnc", daemon=True).start()
            weakref.finalize(self, self._calls.put, None)
        loop = asyncio.get_running_loop()
        call = _Call(loop, loop.create_future())
        self._calls.put(call)
        outcome = await call.future
        if outcome.error is not None:
            self._log(outcome.error)
            raise LoadError(f"it raised {_error_text(outcome.error)}")
        value = checked(outcome.result)
        self._has_failed = False
        return value

    def _log(self, error: BaseException) -> None:
        """Log the traceback of the first failure after a success. ``load_fnc`` is called twice a second."""
        if not self._has_failed:
            self._has_failed = True
            _logger.error("load_fnc failed", exc_info=error)


def _run(calls: SimpleQueue[_Call | None], function: Callable[[], Any]) -> None:
    while (call := calls.get()) is not None:
        if not call.future.cancelled():
            outcome = outcome_of(function, (), {})
            with suppress(RuntimeError):  # the loop is closed: the process ends
                call.loop.call_soon_threadsafe(_settle, call.future, outcome)


def _call(function: Callable[..., Any], server: object) -> Any:
    return function(server) if inspect.signature(function).parameters else function()


def checked(value: Any) -> float:
    """Return a load as a number from 0 to :data:`HIGHEST`. Raises :class:`LoadError` for any other value."""
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise LoadError("it is async, and LiveKit does not await it. Define it with def")
    if isinstance(value, (str, bytes, bytearray)):
        raise LoadError(f"it returned {_short(value)}, which is no number")
    try:
        load = float(value)
    except OverflowError:  # the value is a very large integer
        load = math.inf if value > 0 else -math.inf
    except Exception:  # the __float__ of a class of the app's may raise anything
        raise LoadError(f"it returned {_short(value)}, which is no number") from None
    if math.isnan(load) or load < 0:
        raise LoadError(f"it returned {_short(value)}; a load is 0 or more, and 1 is full")
    return min(load, HIGHEST)


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _error_text(error: BaseException) -> str:
    """Return an error and its place, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    try:
        text = str(error)
    except Exception as failure:
        text = f"<its __str__ raised {type(failure).__name__}>"
    return f"{type(error).__name__}: {text}{place}"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception as failure:
        text = f"a {type(value).__name__} whose __repr__ raised {type(failure).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
