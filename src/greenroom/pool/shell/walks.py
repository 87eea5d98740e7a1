"""Thread for calls that walk the page tables of a process, or look at all processes, and its budget of CPU time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from ...token_bucket import TokenBucket

__all__ = ["Walks"]

SHARE = 0.02
"""CPU time of the thread, as a part of one CPU. Only calls that can wait are bound by it."""
AT_ONCE = 0.1
"""CPU seconds that are saved up at most."""

P = ParamSpec("P")
T = TypeVar("T")


class Walks:
    """Thread that runs costly looks at other processes, one after the other, so that the event loop does not.

    Looks that can wait have a budget of CPU time. A look that must come soon is made in any case, such as one at a
    process near its memory limit.
    """

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="greenroom-walks")
        self._budget = TokenBucket(SHARE, AT_ONCE)
        with suppress(RuntimeError):  # no thread can be started; a later call tries again
            self.executor.submit(int)  # start the thread now: in a fork storm, no thread can be started

    def has_spare_time(self) -> bool:
        """Return true if there is CPU time for a look that can wait."""
        return self._budget.left() > 0

    def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run a function in the thread. The future has ``RuntimeError`` if the thread cannot be started."""
        loop = asyncio.get_running_loop()
        try:
            return loop.run_in_executor(self.executor, partial(fn, *args, **kwargs))
        except RuntimeError as error:
            failed: asyncio.Future[T] = loop.create_future()
            failed.set_exception(error)
            return failed

    def run_in_spare_time(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run a function in the thread, and charge its CPU time. Ask :meth:`has_spare_time` first."""

        def timed() -> T:
            begin = time.thread_time()
            try:
                return fn(*args, **kwargs)
            finally:
                loop.call_soon_threadsafe(self._charge, time.thread_time() - begin)

        loop = asyncio.get_running_loop()
        return self.run(timed)

    def close(self) -> None:
        """End the thread after its present call."""
        self.executor.shutdown(wait=False)

    def _charge(self, seconds: float) -> None:
        # One long look must not use up the budget of an hour.
        self._budget.spend(min(seconds, self._budget.left() + AT_ONCE))
