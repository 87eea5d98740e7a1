"""What a livekit-agents app sets of Greenroom's settings, and which of its options have no effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...app_setting import AppSetting
from .log_levels import Level, of_command

__all__ = ["DRAIN_TIMEOUT", "megabytes", "of_log", "settings_of", "without_effect"]

DRAIN_TIMEOUT = 3600.0
"""Seconds that calls may go on for in a drain, by LiveKit's default: agents are written for it."""

_SHORTEST, _LONGEST = 0.1, 10.0**8
_NO_MEMORY = 10.0**9
"""MiB that no machine has."""


def _seconds(value: float | None) -> float:
    """LiveKit has deadlines of 0, and ones that never come; a pool has neither."""
    return _LONGEST if value is None else min(max(value, _SHORTEST), _LONGEST)


def megabytes(value: float | None) -> float | None:
    """Return a limit as a pool takes it. LiveKit keeps none that is 0 or less, infinite, or NaN."""
    return value if value is not None and 0 < value < _NO_MEMORY else None


def _same(value: Any) -> Any:
    return value


_SETTINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "initialize_process_timeout": ("prewarm_timeout", _seconds),
    "shutdown_process_timeout": ("shutdown_timeout", _seconds),
    "drain_timeout": ("drain_timeout", _seconds),
    "job_memory_warn_mb": ("memory_warn_mb", megabytes),
    "job_memory_limit_mb": ("memory_limit_mb", megabytes),
    "num_idle_processes": ("num_idle_processes", _same),
    "port": ("health_port", _same),
    "host": ("health_host", _same),
}
"""LiveKit's option, Greenroom's setting, and how the value of one becomes that of the other."""

_OF_LOG = {"TRACE": "debug", "DEBUG": "debug", "WARN": "warning", "WARNING": "warning", "ERROR": "error"}

_WITHOUT_EFFECT = {
    "load_threshold": "the worker tells its load from free slots, not from CPU; set max_jobs to what fits here",
    "load_fnc": "it is not asked, since the worker tells its load from free slots; as a cap, set max_jobs",
    "max_retry": "the worker tries to connect for as long as it runs, and /readyz says so meanwhile",
    "multiprocessing_context": "set start_method to spawn where libraries of the app do not survive a fork",
    "prometheus_port": "the worker has /metrics on its own port, and /metrics/jobs for what jobs count",
    "prometheus_multiproc_dir": "set the worker's variable PROMETHEUS_MULTIPROC_DIR, and scrape its /metrics/jobs",
}
"""What to do instead, by LiveKit's option."""


def settings_of(options: Mapping[str, Any], maker: str, command: str | None) -> dict[str, AppSetting]:
    """What these options set. ``maker``: the name of what they were given to; ``command``: ``dev``, or another."""
    found = {}
    for option, (name, convert) in _SETTINGS.items():
        if option in options:
            value = of_command(options[option], command)
            found[name] = AppSetting(convert(value), _words(maker, option, value))
    if "drain_timeout" not in options and command != "dev":
        found["drain_timeout"] = AppSetting(DRAIN_TIMEOUT, f"default of {maker}(drain_timeout)")
    return found


def of_log(level: Level, maker: str) -> dict[str, AppSetting]:
    """The level from which the app is heard, if the app or LiveKit's variable has set one."""
    if level.is_operators or level.is_default:
        return {}
    words = _words(maker, "log_level", level.name) if level.is_apps else level.origin
    return {"log_level": AppSetting(_OF_LOG.get(level.name, level.name.lower()), f"{words}, for what the app logs")}


def without_effect(options: Mapping[str, Any], maker: str, has_load_fnc: bool) -> list[str]:
    """A sentence for each option that was set in vain, with what to set instead."""
    vain = {name: value for name, value in options.items() if name in _WITHOUT_EFFECT}
    if vain.get("load_threshold", 0) is None:
        del vain["load_threshold"]  # infinite: no load is too much, as here
    if has_load_fnc:
        vain["load_fnc"] = None
    found = [f"{maker}({name}=...) has no effect: {_WITHOUT_EFFECT[name]}" for name in vain]
    if "host" in options and "port" not in options:
        found.append(f"{maker}(host=...) has no effect without a port: set port beside it, or health_port")
    return found


def _words(maker: str, option: str, value: Any) -> str:
    return f"{maker}({option}={value!r})"
