"""Log of callbacks that hold up the worker's event loop, for debugging."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..clean_text import clean, cut_end
from ..log_fields import log_fields

__all__ = ["slow_callbacks"]

_logger = logging.getLogger("greenroom")

_LONGEST_NAME = 200


@contextmanager
def slow_callbacks(limit_ms: float | None) -> Iterator[None]:
    """Log each callback of an event loop that takes more CPU time (thread time, in ms) than the limit.

    Time in which this thread only waits for a CPU does not count. The debug mode of asyncio counts it, and slows down
    each task besides. The event loop calls ``Handle._run`` for each callback, and for each step of a task.
    """
    if limit_ms is None:
        yield
        return
    handle: Any = asyncio.Handle
    run = handle._run

    def timed(self: Any) -> None:
        begin = time.thread_time()
        run(self)
        taken_ms = (time.thread_time() - begin) * 1000
        if taken_ms > limit_ms:
            name = clean(cut_end(_name_of(self._callback), _LONGEST_NAME))
            extra = log_fields("slow_callback", callback=name, cpu_ms=round(taken_ms, 1))
            _logger.warning("the event loop was held up for %.1f ms of CPU time by %s", taken_ms, name, extra=extra)

    handle._run = timed
    try:
        yield
    finally:
        handle._run = run


def _name_of(callback: Any) -> str:
    """Return the name of a function, or of the coroutine of a task."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return f"task {owner.get_name()} ({getattr(owner.get_coro(), '__qualname__', owner.get_coro())})"
    callback = getattr(callback, "func", callback)  # of functools.partial
    return f"{getattr(callback, '__module__', '')}.{getattr(callback, '__qualname__', repr(callback))}"
