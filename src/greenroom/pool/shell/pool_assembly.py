"""Assembly of a pool from its parts."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable
from pathlib import Path

from ...exit_report import ExitReport
from ...system.cgroup import MemoryCgroups
from ..core.core import PoolCore
from ..core.effective_options import EffectiveOptions
from ..event_bus import EventBus
from ..flight_recorder.startup import recorder_of
from ..wall_clock import EPOCH
from .clock import AwakeClock
from .housekeeping import Housekeeping
from .known_walls import KnownWalls
from .launchers import Launchers
from .log_allowance import LogAllowance
from .oom import OomCounter
from .orphans import OrphanKiller
from .outer_domain import OuterDomain
from .page_tables import PageTables
from .process_counter import ProcessCounter
from .reaper_client import ReaperClient
from .script_client import Invocation, ScriptClient
from .shell import Shell
from .tools import Tools
from .transit import TransitMemory
from .walks import Walks

__all__ = ["assemble"]


def assemble(
    app: str,
    effective: EffectiveOptions,
    invocation: Invocation,
    events: EventBus,
    keep: Callable[[ExitReport], object],
    recordings: Path | None,
    domain: OuterDomain,
) -> Shell:
    """Return the shell of a pool, with its clock running. ``keep`` gets each exit report.

    ``recordings`` is the folder for the flight recording that a crash leaves behind. The shell closes ``domain``.
    """
    token, clock = secrets.token_hex(8), AwakeClock()
    core = PoolCore(effective, offset=EPOCH)
    pids = _Pids()
    orphans = OrphanKiller(token, pids.own, pids.living)
    cgroups = functools.cache(lambda: MemoryCgroups.where_delegated(token))
    log_budget, transit = LogAllowance.of_pool(), TransitMemory(clock)
    walks, page_tables = Walks(), PageTables(clock)
    tools = Tools(clock, OomCounter(), orphans, log_budget, transit, walks, page_tables, KnownWalls(), domain, cgroups)
    shell = Shell(core, tools, events, keep, recorder_of(core, effective.options.flight_recorder_mb, recordings))
    pids.shell = shell
    script = ScriptClient(app, token, tools, effective.options.preload_timeout, invocation)
    shell.launchers = Launchers(app, token, lambda: core.pool.effective, script, tools, shell.report)
    shell.reaper = ReaperClient(token)
    clock.start()
    shell.reaper.start()
    Housekeeping(shell, tools).start()
    ProcessCounter(shell.children, token, tools, shell.report).start()
    return shell


class _Pids:
    """Pids of a pool whose shell is made later."""

    shell: Shell

    def own(self) -> set[int]:
        """Return the pids of the pool's processes that are not reaped."""
        return self.shell.own_pids()

    def living(self) -> set[int]:
        """Return the pids of the pool's processes that are not dead."""
        return self.shell.living_pids()
