"""LiveKit's monitor of blocked event loops, which feeds the traces of a session (from 1.8)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

try:
    from livekit.agents.telemetry import loop_monitor
except ImportError:  # before 1.8
    loop_monitor = None  # type: ignore[assignment]

__all__ = ["monitored"]


@contextmanager
def monitored(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """For the length of a job: an idle process has nothing to tell, and needs no thread for it."""
    if loop_monitor is None:
        yield
        return
    loop_monitor.start_monitoring(loop, name="job")
    try:
        yield
    finally:
        loop_monitor.stop_monitoring(loop)
