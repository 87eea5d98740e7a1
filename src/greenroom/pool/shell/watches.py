"""Watches of one process: its event loop, its memory, and the memory limit of its cgroup."""

from __future__ import annotations

import logging

from ...log_fields import log_fields
from ...options import PoolOptions
from ...system.cgroup import MemoryCgroups
from ..core import vocabulary as v
from ..core.stalls import Stall
from .tools import Report, Tools
from .watch import MemoryWatch, StallWatch, Watched

__all__ = ["Watches"]

_logger = logging.getLogger("greenroom")


class Watches:
    """Watches of one process, which report stalls and too much memory."""

    def __init__(self, process: Watched, tools: Tools, report: Report) -> None:
        self._process = process
        self._tools = tools
        self._report = report
        self._stalls: StallWatch | None = None
        self._memory: MemoryWatch | None = None
        self._has_limit = False

    def watch_memory(self, options: PoolOptions) -> None:
        """Watch the memory of the process. Where cgroups are delegated, the kernel enforces the limit, too."""
        self._has_limit = options.memory_limit_mb is not None
        self._enclose(options.memory_limit_mb)
        if self._memory is not None:
            self._memory.stop()
        clock, page_tables = self._tools.clock, self._tools.page_tables
        self._memory = MemoryWatch(self._process, options, clock, page_tables, self._on_overweight)

    def watch_stalls(self, timeout: float) -> None:
        """Watch the event loop of the process."""
        self._stalls = StallWatch(self._process, timeout, self._tools.clock, self._on_stall)

    def hurry(self) -> None:
        """Look soon at the memory of the process, because the process is not idle any more."""
        if self._memory is not None:
            self._memory.hurry()

    def stop(self) -> None:
        """Stop all watches."""
        for watch in (self._stalls, self._memory):
            if watch is not None:
                watch.stop()
        self._stalls = self._memory = None

    def kill_cgroup(self) -> None:
        """Kill all processes in the cgroup of the process, if there is one."""
        cgroups = self._cgroups()
        if cgroups is not None:
            cgroups.kill(self._process.id)

    def limit_was_hit(self) -> bool:
        """Return true if the kernel has killed in the cgroup of the process, because the memory limit was reached."""
        cgroups = self._cgroups()
        return cgroups is not None and cgroups.limit_was_hit(self._process.id)

    def forget(self) -> None:
        """Stop all watches, and remove the cgroup of the process."""
        self.stop()
        cgroups = self._cgroups()
        if cgroups is not None:
            cgroups.remove(self._process.id)

    def _on_stall(self, stall: Stall, seconds: float) -> None:
        self._report(v.Stalled(self._process.id, stall, seconds))

    def _on_overweight(self, memory_mb: float) -> None:
        self._report(v.Overweight(self._process.id, memory_mb))

    def _enclose(self, limit_mb: float | None) -> None:
        cgroups = self._cgroups()
        if limit_mb is None or cgroups is None:
            return
        try:
            cgroups.enclose(self._process.id, self._process.live_pid, limit_mb)
        except OSError as error:
            text = "%s has no memory cgroup (%s); its memory is still watched"
            extra = log_fields("cgroup_failed", **self._process.record.ids, cause=str(error))
            _logger.warning(text, self._process.record.label, error, extra=extra)

    def _cgroups(self) -> MemoryCgroups | None:
        return self._tools.find_cgroups() if self._has_limit else None
