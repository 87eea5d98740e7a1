"""Measurement of one real session: its process's memory before and during the session, and its CPU time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from ..errors import LaunchError
from ..options import PoolOptions
from ..pool import Invocation, JobHandle
from ..system import proc
from .facts import SessionFacts, WarmProcess
from .pacing import Pace
from .warm import pool_of, process_of

__all__ = ["LONGEST", "measure_session"]

LONGEST = 60.0
"""Seconds after which a session is cancelled. The largest memory until then is reported."""
_LOOK_EVERY = 0.01
_START_UP = 4.0
"""Seconds of a session whose CPU time is left out: what a start takes says nothing about the rest."""
_LEAST_SECONDS = 1.0
"""Seconds after that, below which the CPU time of a session says nothing."""


async def measure_session(app: str, options: PoolOptions, invocation: Invocation, metadata: Any) -> SessionFacts:
    """Make one process idle, run one session in it, and return the facts. Raises :class:`AppLoadError`."""
    pool = pool_of(app, options, invocation)
    with Pace(pool) as pace:
        async with pool:
            if not await pace.until_idle(1, options.prewarm_timeout):
                return SessionFacts(None, None, "no process became idle")
            idle = {info.pid: process_of(info.pid) for info in pool.processes if info.state == "idle" and info.pid}
            try:
                handle = await pool.launch(metadata)
            except LaunchError as error:
                return SessionFacts(None, None, str(error))
            after, cpus = await _watch(handle)
            report = await handle.wait()
    before = None if report.pid is None else idle.get(report.pid)
    failure = "" if report.outcome == "succeeded" else report.detail
    return SessionFacts(before, after, failure, cpus)


async def _watch(handle: JobHandle) -> tuple[WarmProcess | None, float | None]:
    """Watch a session until it ends. Return its process at the largest private memory, and the CPUs that it took."""
    end = asyncio.ensure_future(handle.wait())
    loop = asyncio.get_running_loop()
    begin, give_up = loop.time(), loop.time() + LONGEST
    most: WarmProcess | None = None
    settled = latest = (0.0, 0.0)
    while not end.done():
        seen = None
        with suppress(OSError):  # the process has ended
            if handle.pid is not None:
                seen = await asyncio.to_thread(process_of, handle.pid)
                latest = (loop.time(), proc.cpu_seconds(handle.pid))
        if latest[0] - begin < _START_UP:
            settled = latest
        if seen is not None and (most is None or seen.private_mb > most.private_mb):
            most = seen
        if loop.time() > give_up:
            handle.cancel(f"doctor measures a session for at most {LONGEST:g} s")
            give_up = float("inf")
        await asyncio.wait([end], timeout=_LOOK_EVERY)
    seconds = latest[0] - settled[0]
    return most, (latest[1] - settled[1]) / seconds if seconds > _LEAST_SECONDS else None
