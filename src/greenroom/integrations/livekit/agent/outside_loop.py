"""Context for sync code that must run as if this thread had no event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["outside_loop"]


@contextmanager
def outside_loop() -> Iterator[None]:
    """Leave the running loop for the length of a ``with`` block. The block must await nothing.

    LiveKit calls ``setup_fnc`` before it has a loop, so that function may call ``asyncio.run(...)``. asyncio
    rejects that call inside a running loop. A thread is no way out, since plugins require the main thread.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    if task is not None:
        asyncio.tasks._leave_task(loop, task)
    asyncio._set_running_loop(None)
    other = asyncio.new_event_loop()
    asyncio.set_event_loop(other)  # for get_event_loop() in the block
    try:
        yield
    finally:
        other.close()
        asyncio.set_event_loop(loop)
        asyncio._set_running_loop(loop)
        if task is not None:
            asyncio.tasks._enter_task(loop, task)
