"""LiveKit's monitor of blocked event loops, which reports to the traces of a session (from 1.8)."""

from __future__ import annotations

import asyncio
import contextvars

try:
    from livekit.agents.telemetry import loop_monitor
except ImportError:  # before 1.8
    loop_monitor = None  # type: ignore[assignment]

__all__ = ["LoopMonitor"]


class LoopMonitor:
    """Monitor that runs during a job alone. An idle process has nothing to report, and needs no thread for that."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Start the monitor. The caller's context is the one to which the traces belong."""
        if loop_monitor is not None:
            monitor = loop_monitor.start_monitoring(self._loop, name="job")
            if monitor is not None:
                monitor.set_report_context(contextvars.copy_context())

    def stop(self) -> None:
        if loop_monitor is not None:
            loop_monitor.stop_monitoring(self._loop)
