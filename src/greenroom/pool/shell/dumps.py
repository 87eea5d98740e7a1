"""Stack dumps of processes that will be killed: the request, the wait and the result."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from ...system import stackdump
from ...system.heartbeat import Beats
from ..core.stalls import DumpPatience, DumpTime, Sample
from .clock import AwakeClock
from .watch import sample_of

__all__ = ["DumpTaker"]


class DumpTaker:
    """Taker of one process's stacks. ``on_end`` gets the stacks when they are complete or the time is over.

    A stopped process is continued. Raises ``OSError`` if the process is gone, or if its files may not be read.
    """

    def __init__(
        self, pid: int, dump_fd: int, time: DumpTime, clock: AwakeClock, on_end: Callable[[str], object]
    ) -> None:
        self._pid = pid
        self._fd = stackdump.open_of(pid, dump_fd)
        self._patience = DumpPatience(time)
        self._clock = clock
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        stackdump.request(pid)
        self._patience.ends_with(self._sample())
        self._look_later()

    def finish(self) -> None:
        """Stop waiting, and call ``on_end`` with the text so far, unless ``on_end`` was called before."""
        if self._fd == -1:
            return
        stacks = stackdump.read(self._fd)
        self.drop()
        self._on_end(stacks)

    def drop(self) -> None:
        """Stop waiting, without a call of ``on_end``."""
        if self._fd != -1:
            self._next_look.cancel()
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> None:
        # The kernel reports no event when a process writes to a file, so the file is read again and again.
        if stackdump.is_complete(stackdump.read(self._fd)) or self._patience.ends_with(self._sample()):
            self.finish()
            return
        self._look_later()

    def _look_later(self) -> None:
        self._next_look = self._loop.call_later(self._patience.pause(), self._look)

    def _sample(self) -> Sample:
        return sample_of(self._pid, self._clock.now(), Beats(0, 0, 0))
