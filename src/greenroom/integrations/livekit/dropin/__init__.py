"""Drop-in: Greenroom's pool under LiveKit's own worker and command line."""

from __future__ import annotations

import logging
from typing import Any

from livekit.agents.ipc import proc_pool as stock
from livekit.agents.job import JobExecutorType

from ....options import PoolOptions
from .proc_pool import OWN_OPTIONS, DropInPool

__all__ = ["use_pool"]

_logger = logging.getLogger("greenroom.livekit")
_stock_pool = stock.ProcPool


def use_pool(**options: Any) -> None:
    """Have every ``AgentServer`` of this process run its jobs in a Greenroom pool. Call it before ``cli.run_app``.

    ``options`` are fields of :class:`~greenroom.PoolOptions` for which an ``AgentServer`` has no setting
    (``job_timeout``, ``stall_timeout``, ``max_jobs``, ``idle_ttl`` …). A second call replaces these options.
    Raises :class:`OptionError` for an option that is unknown, or that the ``AgentServer`` decides.
    """
    OWN_OPTIONS.check(options)
    PoolOptions.from_keywords(options)

    def make_pool(**arguments: Any) -> Any:
        # The console's jobs use the terminal of this process, and so run in its threads.
        if arguments.get("job_executor_type") is JobExecutorType.THREAD:
            _logger.warning(
                "job_executor_type is THREAD, as in the console: use_pool() has no effect, and jobs run in threads of "
                "the worker. Without this option, each job runs in a process of Greenroom's pool"
            )
            return _stock_pool(**arguments)
        return DropInPool(options, **arguments)

    # The worker looks the class up there when it runs. No code subclasses the class or checks its type.
    stock.ProcPool = make_pool  # type: ignore[assignment, misc]
