"""Thread for calls that look at all processes, or read files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

__all__ = ["Walks"]

P = ParamSpec("P")
T = TypeVar("T")


class Walks:
    """Thread that runs costly looks at all processes, one after the other, so that the event loop does not."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="greenroom-walks")
        with suppress(RuntimeError):  # no thread can be started; a later call tries again
            self.executor.submit(int)  # start the thread now: in a fork storm, no thread can be started

    def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run a function in the thread. The future has ``RuntimeError`` if the thread cannot be started."""
        loop = asyncio.get_running_loop()
        try:
            return loop.run_in_executor(self.executor, partial(fn, *args, **kwargs))
        except RuntimeError as error:
            failed: asyncio.Future[T] = loop.create_future()
            failed.set_exception(error)
            return failed

    def close(self) -> None:
        """End the thread after its present call."""
        self.executor.shutdown(wait=False)
