"""Where sessions report: a FIFO that a driver reads in its event loop."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import defaultdict
from itertools import count
from pathlib import Path

from benchmarks.peers.base import JobMetadata


class Inbox:
    def __init__(self) -> None:
        self.fifo = str(Path(tempfile.mkdtemp(prefix="greenroom-bench-")) / "inbox")
        os.mkfifo(self.fifo)
        # Open for writing too, or the reader would see the end of the file whenever no session writes.
        self._fd = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._ids = count(1)
        self._partial = b""
        self._entered: defaultdict[int, asyncio.Future[int]] = defaultdict(_future)
        self.warm: dict[int, int] = {}
        """Processes that reported to be warm and took no session yet: pid -> when, in ns."""
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def metadata(self, hold: float = 0.0) -> JobMetadata:
        return {"id": next(self._ids), "fifo": self.fifo, "hold": hold}

    async def entered(self, metadata: JobMetadata) -> int:
        """When the session's entrypoint was entered, in ns of CLOCK_MONOTONIC."""
        when = await self._entered[metadata["id"]]
        del self._entered[metadata["id"]]
        return when

    def _read(self) -> None:
        *lines, self._partial = (self._partial + os.read(self._fd, 65536)).split(b"\n")
        for line in lines:
            what, job_id, pid, when = line.decode().split()
            if what == "warm":
                self.warm[int(pid)] = int(when)
            else:
                self.warm.pop(int(pid), None)
                self._entered[int(job_id)].set_result(int(when))


def _future() -> asyncio.Future[int]:
    return asyncio.get_running_loop().create_future()
