"""The stacks of a process that is about to be killed: asked for, waited for, and handed on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from ..system import stackdump
from ..system.heartbeat import Beats
from .clock import AwakeClock
from .stalls import DumpPatience, DumpTime, Sample
from .watch import sample_of

__all__ = ["DumpTaker"]


class DumpTaker:
    """Has a process write its stacks, and calls ``on_end`` with them when they are there, or its time is over.

    A process that is stopped is continued. Raises ``OSError`` if the process is gone, or not ours to look into.
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
        """Wait no longer: ``on_end`` is called now, with what has been written, unless it was called before."""
        if self._fd == -1:
            return
        stacks = stackdump.read(self._fd)
        self.drop()
        self._on_end(stacks)

    def drop(self) -> None:
        """Wait no longer, and tell nobody."""
        if self._fd != -1:
            self._next_look.cancel()
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> None:
        # There is no event for the end of a write to a file, so it is looked at.
        if stackdump.is_complete(stackdump.read(self._fd)) or self._patience.ends_with(self._sample()):
            self.finish()
            return
        self._look_later()

    def _look_later(self) -> None:
        self._next_look = self._loop.call_later(self._patience.pause(), self._look)

    def _sample(self) -> Sample:
        return sample_of(self._pid, self._clock.now(), Beats(0, 0, 0))
