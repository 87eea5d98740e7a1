"""What an app's script hands over, if its main block starts a worker: without it such an app cannot be loaded."""

from __future__ import annotations

import secrets
from typing import Any

from ..options import PoolOptions
from ..pool.budgets import Allowance
from ..pool.clock import AwakeClock
from ..pool.contracts import Services
from ..pool.events import EventBus
from ..pool.oom import OomCounter
from ..pool.program import Invocation, Program
from ..pool.strays import StrayKiller
from ..pool.terms import Terms
from ..pool.transit import TransitMemory
from ..system import prctl

__all__ = ["handed_by"]


async def handed_by(app: str, options: PoolOptions) -> dict[str, Any] | None:
    """Run the script until it has handed over, and end it. Raises :class:`AppLoadError`."""
    prctl.set_child_subreaper()
    token, clock = secrets.token_hex(8), AwakeClock()
    strays = StrayKiller(token, lambda: program.pids, lambda: program.pids)
    services = Services(
        Terms(options, frozenset()), options, clock, OomCounter(), strays, Allowance.of_pool(), TransitMemory(clock),
        EventBus(), lambda: None,
    )  # fmt: skip
    program = Program(app, token, services, Invocation())
    clock.start()
    try:
        await program.start()
        return program.handed
    finally:
        await program.close()
        clock.stop()
