"""Calling sync code as if no event loop ran in this thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["outside_loop"]


@contextmanager
def outside_loop() -> Iterator[None]:
    """Step out of the running loop for the length of a ``with`` block that awaits nothing.

    LiveKit calls ``setup_fnc`` before it has a loop, so one may do ``asyncio.run(...)`` in it. That
    is refused inside a running loop, and a thread would not do either: plugins insist on the main one.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    if task is not None:
        asyncio.tasks._leave_task(loop, task)
    asyncio._set_running_loop(None)
    other = asyncio.new_event_loop()
    asyncio.set_event_loop(other)  # what get_event_loop() gives to such code
    try:
        yield
    finally:
        other.close()
        asyncio.set_event_loop(loop)
        asyncio._set_running_loop(loop)
        if task is not None:
            asyncio.tasks._enter_task(loop, task)
