"""Figures of running jobs over time: memory, CPU time, and how their event loops beat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from ...pool import JobHandle
from ...pool.events import MemorySampled
from ...system import proc
from .figures import Sample
from .record import Record

__all__ = ["BEAT", "WRITTEN_EVERY", "Sampler"]

BEAT = 1.0
"""Seconds between two beats of the event loop of a job."""
AT_ONCE = 50
"""Jobs that are sampled in one turn of the event loop."""
LAG_EVERY = 0.5
"""Seconds between two measurements of the lag of the worker's event loop."""
WRITTEN_EVERY = 10
"""Samples of a live job from one write of them to the next."""


class Sampler:
    """Sampler of running jobs.

    ``live`` returns the handles of the jobs that have not ended, and ``find`` the record of a job. ``changed`` is
    called for a record whose samples are to be written to disk.
    """

    def __init__(
        self,
        live: Callable[[], Iterable[JobHandle]],
        find: Callable[[str], Record | None],
        changed: Callable[[Record], None],
    ) -> None:
        self._live = live
        self._find = find
        self._changed = changed
        self.worker_lag = 0.0
        """Seconds by which the worker's own event loop came late to the last of its regular calls."""
        self._private: dict[str, tuple[float, float]] = {}
        """For each process of a running job: its private memory at the latest measurement, and its anonymous memory
        then."""

    def look_at(self, handle: JobHandle) -> None:
        """Read the last beat of a live job. A job that is ending is not watched: its exit may block."""
        record, age = self._find(handle.id), handle.beat_age
        if record is not None:
            record.beat_at = time.time() - age if age is not None and handle.state == "running" else None

    async def sample_all(self) -> None:
        """Sample all live jobs, some in each turn of the event loop."""
        for number, handle in enumerate(list(self._live())):
            self._sample(handle)
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)

    async def measure_lag(self) -> None:
        """Note how late a regular call of the worker's event loop comes, whatever else it does, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY
            await asyncio.sleep(LAG_EVERY)
            self.worker_lag = max(loop.time() - due, 0.0)

    def note_memory(self, event: MemorySampled) -> None:
        """Keep the measured private memory of a running job."""
        if event.state == "running":
            # The anonymous memory at that moment is read at the next sample of the job.
            self._private[event.process_id] = (event.private_mb, -1.0)

    def forget(self, process_id: str | None) -> None:
        """Drop the memory of a process that has ended."""
        self._private.pop(process_id or "", None)

    def _sample(self, handle: JobHandle) -> None:
        record, pid = self._find(handle.id), handle.pid
        if record is None or pid is None or record.started is None or record.ended is not None:
            return
        self.look_at(handle)
        with suppress(OSError):  # the process is gone, or no fds are left
            memory = self._memory(record.process_id, proc.anonymous_mb(pid))
            record.figures.add(Sample(time.time(), memory, proc.cpu_seconds(pid), handle.loop_lag))
        if record.figures.count % WRITTEN_EVERY == 0:
            self._changed(record)

    def _memory(self, process_id: str | None, anonymous_mb: float) -> float | None:
        """Return the private memory: that of the latest measurement, and what was allocated since."""
        known = self._private.get(process_id or "")
        if known is None:
            return None
        private_mb, then = known
        if then < 0:
            then = anonymous_mb
            self._private[process_id or ""] = (private_mb, then)
        return max(private_mb + anonymous_mb - then, 0.0)
