"""LiveKit's monitor of blocked event loops, which feeds the traces of a session (from 1.8)."""

from __future__ import annotations

import asyncio
import contextvars

try:
    from livekit.agents.telemetry import loop_monitor
except ImportError:  # before 1.8
    loop_monitor = None  # type: ignore[assignment]

__all__ = ["LoopMonitor"]


class LoopMonitor:
    """Runs for the length of a job: an idle process has nothing to tell, and needs no thread for it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """To be called in the context that its traces belong to."""
        if loop_monitor is not None:
            monitor = loop_monitor.start_monitoring(self._loop, name="job")
            if monitor is not None:
                monitor.set_report_context(contextvars.copy_context())

    def stop(self) -> None:
        if loop_monitor is not None:
            loop_monitor.stop_monitoring(self._loop)
