"""Mechanisms that all processes of a pool share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...system.cgroup import MemoryCgroups
from ..core.vocabulary import Happening
from .clock import AwakeClock
from .known_walls import KnownWalls
from .log_allowance import LogAllowance
from .oom import OomCounter
from .orphans import OrphanKiller
from .outer_domain import OuterDomain
from .page_tables import PageTables
from .transit import TransitMemory
from .walks import Walks

__all__ = ["Report", "Tools"]

Report = Callable[[Happening], object]
"""Function that hands an event to the core."""


@dataclass(slots=True)
class Tools:
    """Mechanisms that a pool has once, for all its processes."""

    clock: AwakeClock
    oom: OomCounter
    orphans: OrphanKiller
    log_budget: LogAllowance
    transit: TransitMemory
    walks: Walks
    page_tables: PageTables
    walls: KnownWalls
    domain: OuterDomain
    find_cgroups: Callable[[], MemoryCgroups | None]
    """Function that returns delegated cgroups, in which the kernel enforces ``memory_limit_mb``, or ``None``.

    The function is called only if there is a limit.
    """
