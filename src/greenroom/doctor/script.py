"""Data that an app's script hands over if its main block starts a worker. Such an app needs the data to load."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..options import PoolOptions
from ..pool.shell.budgets import Allowance
from ..pool.shell.clock import AwakeClock
from ..pool.shell.oom import OomCounter
from ..pool.shell.orphans import OrphanKiller
from ..pool.shell.program import Invocation, Program
from ..pool.shell.tools import Tools
from ..pool.shell.transit import TransitMemory
from ..system import prctl

__all__ = ["handed_by"]


async def handed_by(app: str, options: PoolOptions, invocation: Invocation) -> dict[str, Any] | None:
    """Run the script until it has handed over its data, end it, and return the data.

    Returns ``None`` if the app has no such script. Raises :class:`AppLoadError`.
    """
    prctl.set_child_subreaper()
    token, clock = secrets.token_hex(8), AwakeClock()
    orphans = OrphanKiller(token, lambda: program.pids, lambda: program.pids)
    walks = ThreadPoolExecutor(1)  # never used, since no job is started
    tools = Tools(clock, OomCounter(), orphans, Allowance.of_pool(), TransitMemory(clock), walks, lambda: None)
    program = Program(app, token, tools, options.preload_timeout, invocation)
    clock.start()
    try:
        await program.start()
        return program.handed
    finally:
        await program.close()
        clock.stop()
