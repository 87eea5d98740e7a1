"""What the plain pools share: they call a function in a process, and say nothing about idle processes."""

from __future__ import annotations

import asyncio
import multiprocessing
from multiprocessing.context import BaseContext

from benchmarks.peers.inbox import Inbox

PRELOAD = ["benchmarks.peers.blocking_preload"]


def context(start_method: str) -> BaseContext:
    chosen = multiprocessing.get_context(start_method)
    if start_method == "forkserver":
        chosen.set_forkserver_preload(PRELOAD)
    return chosen


async def warm_processes(inbox: Inbox, target: int) -> None:
    """Wait until `target` processes have run the initializer and wait for a call."""
    while len(inbox.warm) < target:
        await asyncio.sleep(0.005)
