"""Settings of an ``AgentServer``, as options of a pool and as settings of its children."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import Any

from ....errors import OptionError
from ..agent.agent_server_options import megabytes
from ..agent.blueprint import GUARDS
from ..agent.references import reference_to

__all__ = ["OWN_OPTIONS", "child_settings", "pool_options"]

_FREEZE = "livekit.agents.ipc._preload_freeze"  # the zygote freezes its memory itself, and later
_FUNCTIONS = ("initialize_process_fnc", "job_entrypoint_fnc", "session_end_fnc", "simulation_end_fnc")


@dataclass(frozen=True, slots=True)
class _OwnOptions:
    """Pool options that come from the ``AgentServer``, with the name of its own setting for each."""

    names: Mapping[str, str]

    def check(self, options: Mapping[str, Any]) -> None:
        for name in options:
            if name in self.names:
                raise OptionError(
                    f"{name} cannot be set here: the AgentServer sets it. Set its {self.names[name]} instead"
                )


OWN_OPTIONS = _OwnOptions(
    {
        "num_idle_processes": "num_idle_processes",
        "prewarm_timeout": "initialize_process_timeout",
        "shutdown_timeout": "shutdown_process_timeout and session_end_timeout",
        "memory_warn_mb": "job_memory_warn_mb",
        "memory_limit_mb": "job_memory_limit_mb",
    }
)


def pool_options(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a pool for the arguments with which LiveKit's worker makes its own pool."""
    # A child is cancelled after half of its shutdown_timeout. LiveKit's own limits must pass before.
    patience = 2 * (GUARDS + _session_end_timeout(arguments) + arguments["close_timeout"])
    return {
        "num_idle_processes": arguments["num_idle_processes"],
        "prewarm_timeout": arguments["initialize_timeout"],
        "shutdown_timeout": patience,
        "memory_warn_mb": megabytes(arguments["memory_warn_mb"]),
        "memory_limit_mb": megabytes(arguments["memory_limit_mb"]),
        "max_jobs": 1_000_000,  # the worker limits the number by its load
        "stall_timeout": 60.0,  # LiveKit's ping_timeout
        **options,
    }


def child_settings(arguments: Mapping[str, Any], inference: str) -> dict[str, Any]:
    """Return plain data from which a zygote makes the app. Raises :class:`AppLoadError`: see ``references``."""
    return {
        "functions": {name: reference_to(arguments.get(name), name) for name in _FUNCTIONS},
        "preload": _preload_modules(),
        "session_end_timeout": _session_end_timeout(arguments),
        "close_timeout": arguments["close_timeout"],
        "http_proxy": arguments.get("http_proxy") or "",
        "inference": inference,
        "log_levels": _log_levels(),
    }


def _preload_modules() -> list[str]:
    """Return the modules that the worker has named to its forkserver for import."""
    listed = getattr(getattr(forkserver, "_forkserver", None), "_preload_modules", ())
    return [name for name in listed if name not in ("__main__", _FREEZE)]


def _session_end_timeout(arguments: Mapping[str, Any]) -> float:
    return float(arguments.get("session_end_timeout", 300.0))  # a release without it sets no limit


def _log_levels() -> dict[str, int]:
    loggers = {"": logging.getLogger(), **logging.Logger.manager.loggerDict}
    return {name: it.level for name, it in loggers.items() if isinstance(it, logging.Logger) and it.level}
