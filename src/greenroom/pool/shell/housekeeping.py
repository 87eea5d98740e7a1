"""Regular looks at changes that the kernel does not report."""

from __future__ import annotations

from contextlib import suppress

from .sampler import MemorySampler
from .shell import Shell
from .tools import Tools

__all__ = ["Housekeeping"]

INTERVAL = 0.5
"""Seconds between two looks at OOM kills, memory, and processes without a zygote."""
_REAP_INTERVAL = 1.0
"""Seconds between two looks for dead orphans."""
_REAP_PAUSE = 0.005
"""Seconds between two parts of one look for dead orphans. In the pause, the event loop does other work."""


class Housekeeping:
    """Regular looks at OOM kills, memory, stopped processes without a zygote, and dead orphans."""

    def __init__(self, shell: Shell, tools: Tools) -> None:
        self._shell = shell
        self._tools = tools
        self._sampler = MemorySampler(shell.report, tools.page_tables)

    def start(self) -> None:
        """Begin the looks, which go on until the clock stops."""
        self._tools.clock.call_later(INTERVAL, self._look)
        self._reap_dead()

    def _look(self) -> None:
        self._tools.clock.call_later(INTERVAL, self._look)
        self._tools.oom.look()
        children, core = self._shell.children, self._shell.core
        idle = {name: children[name] for name in core.idle_processes() if name in children}
        running = {name: children[name] for name in core.running_processes() if name in children}
        self._sampler.look((idle, running))
        for child in idle.values():
            # No zygote reports that a signal has stopped an adopted process.
            unfit = child.look() if child.is_adopted else None
            if unfit is not None:
                self._shell.report(unfit)

    def _reap_dead(self) -> None:
        """Reap dead orphans that no zygote reaps, now and every second."""
        is_done = True
        try:
            with suppress(OSError):  # no fd is left for the look: try again at the next time
                is_done = self._tools.orphans.reap_dead()
        finally:
            self._tools.clock.call_later(_REAP_INTERVAL if is_done else _REAP_PAUSE, self._reap_dead)
