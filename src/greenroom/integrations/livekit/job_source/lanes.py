"""Lanes for the start-ups of agents, so that in a burst the first callers do not wait for the last.

An agent that starts up takes all the CPU that it gets for some tenths of a second: it runs its entrypoint, joins the
room, and begins to speak. If twenty agents do that at the same time on two CPUs, each of them takes as long as all. So
a job is launched when a lane is free, in the order of arrival. Its lane is free again when the agent's process has
become quiet, or has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from ....sources import JobHandle
from ....system import proc
from ....system.machine_limits import usable_cpus

__all__ = ["Lanes", "Quiet"]

PER_CPU = 2.5
"""Lanes for each CPU. While one agent of a CPU computes, the others wait for the network."""
LOOK_EVERY = 0.03
"""Seconds between two looks at an agent that starts up."""
BUSY = 8
"""Number of agents that start up at the same time, from which on the looks at each become rarer."""
WINDOW = 0.15
"""Seconds that are judged together."""
RUNS, WAITS = 0.2, 0.4
"""Parts of the window that the threads of a quiet process run and wait for a CPU at most, in sum.

An agent in a call runs less. One that starts up beside others may run as little, but then its threads wait for long.
"""
LONGEST = 8.0
"""Seconds after which an agent counts as started up. An agent that computes all the time keeps no lane for ever."""


@dataclass(slots=True)
class Quiet:
    """Judge of one process: it is quiet when it wants little CPU time for a while. Pure."""

    began: float
    _samples: deque[tuple[float, float, float]] = field(default_factory=deque)
    _threads: dict[int, tuple[float, float]] = field(default_factory=dict)
    _ran: float = 0.0
    _waited: float = 0.0

    def has_come(self, now: float, threads: Mapping[int, tuple[float, float]]) -> bool:
        """Note the seconds that each thread of the process ran and waited so far. Return true if it is quiet now."""
        for thread, (ran, waited) in threads.items():
            ran_before, waited_before = self._threads.get(thread, (0.0, 0.0))
            self._ran, self._waited = self._ran + ran - ran_before, self._waited + waited - waited_before
        self._threads = dict(threads)  # a thread that has ended takes nothing back
        ran, waited = self._ran, self._waited
        self._samples.append((now, ran, waited))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW:
            self._samples.popleft()
        then, ran_before, waited_before = self._samples[0]
        window = now - then
        is_quiet = ran - ran_before <= RUNS * window and waited - waited_before <= WAITS * window
        return now - self.began >= LONGEST or (window >= WINDOW and is_quiet)


class Lanes:
    """Lanes of a worker. :meth:`take` or :meth:`enter` gets one, :meth:`leave` or :meth:`follow` gives it back."""

    def __init__(self, most: int | None = None) -> None:
        self.most = max(round(usable_cpus() * PER_CPU), 1) if most is None else most
        self._free = self.most
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a free lane, and return true. Return false if there is none, or others wait for one."""
        if self._free <= 0 or self._waiting:
            return False
        self._free -= 1
        return True

    async def enter(self, patience: float) -> None:
        """Wait for a lane, first come, first served. After ``patience`` seconds, go on as if there were one more."""
        if self.take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(patience):
                await turn
        except TimeoutError:
            if turn.cancelled():  # otherwise the turn came in the same moment, with a lane
                self._free -= 1
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(turn)

    def take_more(self) -> None:
        """Take a lane, also if none is free: then the next ones wait for longer."""
        self._free -= 1

    def leave(self) -> None:
        """Free a lane, for the next that waits."""
        self._free += 1
        while self._waiting and self._free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

    async def follow(self, handle: JobHandle) -> None:
        """Free the lane of a started job when its process has become quiet, or is gone."""
        loop = asyncio.get_running_loop()
        quiet = Quiet(loop.time())
        try:
            while (pid := handle.pid) is not None and handle.report is None:
                if quiet.has_come(loop.time(), proc.schedule_of_threads(pid)):
                    return
                await asyncio.sleep(LOOK_EVERY * max(1.0, (self.most - self._free) / BUSY))
        except OSError:
            return  # the process is gone, or no fds are left
        finally:
            self.leave()
