"""Settings of Greenroom that a livekit-agents app sets, and the app's options that have no effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ....app_facts import AppSetting
from .log_levels import Level, of_command

__all__ = ["DRAIN_TIMEOUT", "megabytes", "of_log", "of_request", "settings_of", "without_effect"]

DRAIN_TIMEOUT = 3600.0
"""Seconds that calls may go on for in a drain. The value is LiveKit's default, which agents rely on."""

_SHORTEST, _LONGEST = 0.1, 10.0**8
_NO_MEMORY = 10.0**9
"""MiB that no machine has."""


def _seconds(value: float | None) -> float:
    """Return a deadline as a pool takes it. LiveKit allows 0 and no deadline, and a pool allows neither."""
    return _LONGEST if value is None else min(max(value, _SHORTEST), _LONGEST)


def megabytes(value: float | None) -> float | None:
    """Return a limit (MiB) as a pool takes it. LiveKit ignores a limit that is 0 or less, infinite, or NaN."""
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
"""Greenroom's setting for each option of LiveKit's, with the function that converts the value."""

_OF_LOG = {"TRACE": "debug", "DEBUG": "debug", "WARN": "warning", "WARNING": "warning", "ERROR": "error"}

_WITHOUT_EFFECT = {
    "load_threshold": "it limits the result of a load_fnc. Without a load_fnc the worker computes its load from free "
    "slots, not from CPU. To limit the number of jobs, set max_jobs",
    "max_retry": "the worker tries to connect as long as it runs. Meanwhile /readyz reports the problem",
    "multiprocessing_context": "set start_method to spawn if libraries of the app do not survive a fork",
    "prometheus_port": "the worker serves /metrics on its own port, and the metrics of jobs at /metrics/jobs",
    "prometheus_multiproc_dir": "set PROMETHEUS_MULTIPROC_DIR for the worker, and scrape its /metrics/jobs",
}
"""Remedies for LiveKit's options without effect."""


REQUEST_TIMEOUT = 2.3
"""Seconds for the request hook. The source answers an offer within 2.5 s."""


def settings_of(options: Mapping[str, Any], maker: str, command: str | None) -> dict[str, AppSetting]:
    """Return the settings that these options set.

    ``maker`` is the name of the class that got the options. ``command`` is ``dev``, or another command.
    """
    found = {}
    for option, (name, convert) in _SETTINGS.items():
        if option in options:
            value = of_command(options[option], command)
            found[name] = AppSetting(convert(value), _words(maker, option, value))
    if "drain_timeout" not in options and command != "dev":
        found["drain_timeout"] = AppSetting(DRAIN_TIMEOUT, f"default of {maker}(drain_timeout)")
    return found


def of_log(level: Level, maker: str) -> dict[str, AppSetting]:
    """Return the setting of the lowest level that the app logs, if the app or LiveKit's variable sets one."""
    if level.is_operators or level.is_default:
        return {}
    words = _words(maker, "log_level", level.name) if level.is_apps else level.origin
    return {"log_level": AppSetting(_OF_LOG.get(level.name, level.name.lower()), f"{words}, for the app's log lines")}


def of_request() -> dict[str, AppSetting]:
    """Return the setting of the request hook's time. LiveKit sets no limit, but its server waits 2.8 s."""
    return {"request_timeout": AppSetting(REQUEST_TIMEOUT, "the request hook, since LiveKit's server waits 2.8 s")}


def without_effect(options: Mapping[str, Any], maker: str, *, has_load_fnc: bool, unfound: str | None) -> list[str]:
    """Return a sentence for each option without effect, with the remedy.

    ``unfound`` is the cause if the processes of the jobs cannot find the ``load_fnc``, and ``None`` otherwise.
    """
    vain = {name: value for name, value in options.items() if name in _WITHOUT_EFFECT}
    if has_load_fnc or vain.get("load_threshold", 0) is None:  # infinite: it sets no limit, so nothing is lost
        vain.pop("load_threshold", None)
    found = [f"{maker}({name}=...) has no effect: {_WITHOUT_EFFECT[name]}" for name in vain]
    if unfound is not None:
        found.append(
            f"{maker}(load_fnc=...) has no effect: {unfound}. Define it at the top level of a file, outside of any "
            f"function and of the main block. Without it the worker computes its load from free slots. To limit "
            f"the number of jobs, set max_jobs"
        )
    if "host" in options and "port" not in options:
        found.append(f"{maker}(host=...) has no effect without a port: also set port, or set health_port")
    return found


def _words(maker: str, option: str, value: Any) -> str:
    return f"{maker}({option}={value!r})"
