"""Data that an app's script hands over if its main block starts a worker. Such an app needs the data to load."""

from __future__ import annotations

import secrets
from typing import Any

from ..options import PoolOptions
from ..pool.shell.clock import AwakeClock
from ..pool.shell.known_walls import KnownWalls
from ..pool.shell.log_allowance import LogAllowance
from ..pool.shell.oom import OomCounter
from ..pool.shell.orphans import OrphanKiller
from ..pool.shell.outer_domain import OuterDomain
from ..pool.shell.page_tables import PageTables
from ..pool.shell.script_client import Invocation, ScriptClient
from ..pool.shell.tools import Tools
from ..pool.shell.transit import TransitMemory
from ..pool.shell.walks import Walks
from ..system import prctl

__all__ = ["handed_by"]


async def handed_by(app: str, options: PoolOptions, invocation: Invocation) -> dict[str, Any] | None:
    """Run the script until it has handed over its data, end it, and return the data.

    Returns ``None`` if the app has no such script. Raises :class:`AppLoadError`.
    """
    prctl.set_child_subreaper()
    token, clock = secrets.token_hex(8), AwakeClock()
    orphans = OrphanKiller(token, lambda: script.pids, lambda: script.pids)
    log_budget, transit = LogAllowance.of_pool(), TransitMemory(clock)
    walls, domain = KnownWalls(), OuterDomain("off")
    page_tables = PageTables(clock)
    tools = Tools(clock, OomCounter(), orphans, log_budget, transit, Walks(), page_tables, walls, domain, lambda: None)
    script = ScriptClient(app, token, tools, options.preload_timeout, invocation)
    clock.start()
    try:
        await script.start()
        return script.handed
    finally:
        await script.close()
        page_tables.close()
        clock.stop()
