"""A driver: the one process in which a peer's pool lives, told what to do by lines of JSON.

The time of each step is taken here, beside the pool; memory and CPU are read by the harness from outside,
so that reading them costs the supervisor nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import time
from collections.abc import Awaitable
from typing import Any

from benchmarks import peers
from benchmarks.peers.base import JobMetadata, PeerPool
from benchmarks.peers.inbox import Inbox

RPC_VARIABLE = "GREENROOM_BENCH_RPC_FD"
_BREATHER = 0.03  # between two launches on a quiet machine


class Driver:
    """Each public method is one request of the harness."""

    def __init__(self, pool: PeerPool, inbox: Inbox) -> None:
        self._pool = pool
        self._inbox = inbox

    async def open(self, idle: int, most: int) -> dict[str, Any]:
        started = time.monotonic()
        await self._pool.open(idle, most)
        return {"seconds": time.monotonic() - started}

    async def pids(self) -> dict[str, Any]:
        return {"supervisor": os.getpid(), "idle": self._pool.idle_pids()}

    async def quiet_launches(self, count: int, seconds: float) -> dict[str, Any]:
        """One session after the other, each when the pool is warm again and nothing runs."""
        latencies: list[float] = []
        deadline = time.monotonic() + seconds
        while len(latencies) < count and time.monotonic() < deadline:
            await asyncio.sleep(_BREATHER)
            latency, ended = await self._launch(self._inbox.metadata())
            latencies.append(latency)
            await ended
            await self._pool.settled()
        return {"ms": latencies}

    async def launches(self, count: int, seconds: float) -> dict[str, Any]:
        """One session after the other while others run; each ends before the next begins."""
        latencies: list[float] = []
        deadline = time.monotonic() + seconds
        while len(latencies) < count and time.monotonic() < deadline:
            await asyncio.sleep(_BREATHER)
            latency, ended = await self._launch(self._inbox.metadata())
            latencies.append(latency)
            await ended
        return {"ms": latencies}

    async def burst(self, count: int, hold: float) -> dict[str, Any]:
        """All sessions at once; the figure is when the last one was entered."""
        jobs = [self._inbox.metadata(hold) for _ in range(count)]
        called = time.monotonic_ns()
        launching = [asyncio.ensure_future(self._pool.launch(metadata)) for metadata in jobs]
        entered = await asyncio.gather(*(self._inbox.entered(metadata) for metadata in jobs))
        await asyncio.gather(*launching)
        return {"seconds": (max(entered) - called) / 1e9, "ms": [(when - called) / 1e6 for when in entered]}

    async def fill(self, count: int, width: int, hold: float) -> dict[str, Any]:
        """Start sessions that stay, `width` at a time, until `count` run."""
        gate = asyncio.Semaphore(width)

        async def one() -> float:
            async with gate:
                return (await self._launch(self._inbox.metadata(hold)))[0]

        started = time.monotonic()
        latencies = await asyncio.gather(*(one() for _ in range(count)))
        return {"seconds": time.monotonic() - started, "ms": latencies}

    async def jobs(self, seconds: float, width: int) -> dict[str, Any]:
        """Empty sessions, `width` at a time: how many end in a second, after one second of running up."""
        ends: list[float] = []
        begun = time.monotonic()
        until = begun + 1.0 + seconds

        async def lane() -> None:
            while time.monotonic() < until:
                await (await self._pool.launch(self._inbox.metadata()))
                ends.append(time.monotonic())

        await asyncio.gather(*(lane() for _ in range(width)))
        counted = sum(begun + 1.0 <= end < until for end in ends)
        return {"per_second": counted / seconds, "ended": len(ends)}

    async def cold(self, count: int, seconds: float) -> dict[str, Any]:
        times: list[float] = []
        deadline = time.monotonic() + seconds
        async for milliseconds in self._pool.cold(count):
            times.append(milliseconds)
            if time.monotonic() > deadline:
                break
        return {"ms": times}

    async def _launch(self, metadata: JobMetadata) -> tuple[float, Awaitable[object]]:
        called = time.monotonic_ns()
        ended = await self._pool.launch(metadata)
        entered = await self._inbox.entered(metadata)
        return (entered - called) / 1e6, ended


async def serve(name: str) -> None:
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # several fds for each of 1,000
    link = socket.socket(fileno=int(os.environ[RPC_VARIABLE]))
    link.set_inheritable(False)
    reader, writer = await asyncio.open_connection(sock=link)
    inbox = Inbox()
    driver = Driver(peers.make(name, inbox), inbox)
    while line := await reader.readline():
        writer.write(json.dumps(await _answer(driver, json.loads(line))).encode() + b"\n")
        await writer.drain()


async def _answer(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = await getattr(driver, request.pop("do"))(**request)
        return answer
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main(name: str) -> None:
    try:
        asyncio.run(serve(name))
    finally:
        # Pools that still hold processes would be waited for here; the harness ends what is left.
        os._exit(0)
