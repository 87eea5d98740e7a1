"""Stack dumps of processes: of those that will be killed, and of running ones on request."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from ...system import stackdump
from ...system.heartbeat import Beats, HeartbeatReader
from ..core.stalls import DumpPatience, DumpTime, Sample
from .clock import AwakeClock
from .watch import sample_of

__all__ = ["DumpTaker", "stacks_of"]

_LOOK_EVERY = 0.02
_BY_THREAD, _BY_SIGNAL = 2.5, 2.0
"""Seconds for the stacks that a thread of the process writes, and then for those that its signal handler writes."""
_FIRST_BEAT = 5.0
"""Seconds until the thread of a process that has just started its job begins to beat, with a margin."""


async def stacks_of(pid: int, dump_fd: int, heartbeat: HeartbeatReader, is_alive: Callable[[], bool]) -> str:
    """Return the stacks of a process that goes on as before; an empty text if it writes none.

    Its heartbeat thread writes them while it holds the GIL, so that no other thread changes its frames. If it does not
    beat any more, C code holds the GIL. Then no thread changes its frames either, and the signal handler writes them.
    Raises ``OSError`` if the process is gone, or if its files may not be read.
    """
    fd = stackdump.open_of(pid, dump_fd)
    try:
        before = heartbeat.read().thread
        heartbeat.ask_for_stacks()
        if await _is_written(fd, _BY_THREAD if before else _FIRST_BEAT):
            return stackdump.read(fd)
        if is_alive() and heartbeat.read().thread == before:  # otherwise the pid may belong to another process by now
            stackdump.request(pid, is_final=False)
            await _is_written(fd, _BY_SIGNAL)
        return stackdump.read(fd)
    finally:
        os.close(fd)


async def _is_written(fd: int, patience: float) -> bool:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience
    while not stackdump.is_complete(stackdump.read(fd)):
        if loop.time() > give_up:
            return False
        await asyncio.sleep(_LOOK_EVERY)
    return True


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
