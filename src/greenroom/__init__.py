"""Greenroom: the process server for realtime agents.

Every zygote imports this module, so it stays light. The supervisor's side is imported at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .app import App
from .errors import (
    AppLoadError,
    ErrorInfo,
    GreenroomError,
    LaunchError,
    NoCapacity,
    OptionError,
    PayloadError,
    PoolClosed,
    PrewarmError,
    ServiceError,
)
from .job import Accept, Job, JobContext, JobProcess, JobRequest, Reject

if TYPE_CHECKING:
    from .exit_report import ExitReport, Timings
    from .options import PoolOptions
    from .pool import JobHandle, PoolStats, ProcessInfo, ProcessPool, Reservation
    from .settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Accept",
    "App",
    "AppLoadError",
    "ErrorInfo",
    "ExitReport",
    "GreenroomError",
    "Job",
    "JobContext",
    "JobHandle",
    "JobProcess",
    "JobRequest",
    "LaunchError",
    "NoCapacity",
    "OptionError",
    "PayloadError",
    "PoolClosed",
    "PoolOptions",
    "PoolStats",
    "PrewarmError",
    "ProcessInfo",
    "ProcessPool",
    "Reject",
    "Reservation",
    "ServiceError",
    "Settings",
    "Timings",
]

_SUPERVISOR_SIDE = {
    "ExitReport": "exit_report",
    "JobHandle": "pool",
    "PoolOptions": "options",
    "PoolStats": "pool",
    "ProcessInfo": "pool",
    "ProcessPool": "pool",
    "Reservation": "pool",
    "Settings": "settings",
    "Timings": "exit_report",
}


def __getattr__(name: str) -> Any:
    if name not in _SUPERVISOR_SIDE:
        raise AttributeError(f"module 'greenroom' has no attribute {name!r}")
    from importlib import import_module  # imported late: a zygote needs none of these names

    return getattr(import_module(f".{_SUPERVISOR_SIDE[name]}", __name__), name)
