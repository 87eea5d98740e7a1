"""No pool at all: `fork` of a process that has the image loaded. What nothing built on fork can beat."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable

from benchmarks import images
from benchmarks.images import session
from benchmarks.peers.base import JobMetadata
from benchmarks.peers.inbox import Inbox


class Floor:
    def __init__(self, inbox: Inbox) -> None:
        self._image = images.current()
        self._image.preload()
        gc.collect()
        gc.freeze()
        self._idle: list[int] = []

    async def open(self, idle: int, most: int) -> None:
        self._idle = [self._idler() for _ in range(idle)]

    def _idler(self) -> int:
        pid = os.fork()
        if not pid:
            self._image.prewarm()
            signal.pause()
        return pid

    async def settled(self) -> None:
        pass

    async def launch(self, metadata: JobMetadata) -> Awaitable[object]:
        pid = os.fork()
        if not pid:
            session.enter(metadata)
            os._exit(0)
        return asyncio.ensure_future(asyncio.to_thread(os.waitpid, pid, 0))

    def idle_pids(self) -> list[int]:
        return self._idle

    async def cold(self, count: int) -> AsyncIterator[float]:
        """`fork`, `_exit` in the child, `waitpid`."""
        for _ in range(count):
            await asyncio.sleep(0.005)
            started = time.monotonic_ns()
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
            yield (time.monotonic_ns() - started) / 1e6
