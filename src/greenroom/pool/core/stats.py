"""Figures of a pool at one moment."""

from __future__ import annotations

from typing import Any

from . import generation, job_queue
from .records import Pool
from .states import LauncherState

__all__ = ["of_pool"]


def of_pool(pool: Pool) -> dict[str, Any]:
    """Return the fields of :class:`~greenroom.PoolStats`."""
    serving = pool.serving
    launcher = serving.launcher if serving is not None else None
    is_up = launcher is not None and launcher.state is LauncherState.UP
    idle = len(serving.idle) if serving is not None else 0
    trouble = serving.trouble if serving is not None else None
    problem = job_queue.capacity_problem(pool) or (None if idle else "warming")
    jobs = len(pool.job_queue.jobs)
    return {
        "ready": problem is None,
        "not_ready_reason": problem,
        "idle": idle,
        "warming": sum(len(one.warming) for one in pool.generations.values()),
        "jobs": jobs,
        "waiting": len(pool.job_queue.waiting),
        "expected_wait": generation.expected_wait(pool),
        "idle_target": generation.idle_target(pool),
        "generation": serving.number if serving is not None and is_up else None,
        "zygote_pid": launcher.pid if launcher is not None and is_up else None,
        "zygote_restarts": pool.launcher_restarts,
        "breaker_open": trouble is not None or (serving is not None and serving.breaker.is_open),
        "breaker_cause": trouble or (serving.breaker.cause if serving is not None else None),
        "session_mb": pool.cost.session_mb,
        "expected_growth_mb": pool.cost.expected_growth_mb(jobs - pool.cost.sampled),
    }
