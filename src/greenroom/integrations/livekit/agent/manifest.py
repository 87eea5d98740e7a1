"""Manifest of a livekit-agents app: plain data for the supervisor, which never imports the app itself."""

from __future__ import annotations

import inspect
import math
import os
from typing import Any

from livekit.agents import AgentServer, JobExecutorType, WorkerOptions
from livekit.protocol import agent

from ....errors import AppLoadError
from .agent_server_options import without_effect
from .blueprint import VERSION, Blueprint, Unfound, maker_of
from .log_levels import COMMAND, of_command

__all__ = ["describe"]

_OPTIONS = (
    "num_idle_processes",
    "drain_timeout",
    "job_memory_warn_mb",
    "job_memory_limit_mb",
    "load_threshold",
    "initialize_process_timeout",
    "shutdown_process_timeout",
    "session_end_timeout",
    "max_retry",
    "log_level",
    "host",
    "port",
    "multiprocessing_context",
    "prometheus_port",
    "prometheus_multiproc_dir",
)
_ELSEWHERE = {"multiprocessing_context": "_mp_ctx_str"}
"""Attributes of an ``AgentServer`` that are not named like their options."""


_FOR_EVER = 1e9
"""Seconds, in the place of no limit."""

_CREDENTIALS = {"ws_url": "LIVEKIT_URL", "api_key": "LIVEKIT_API_KEY", "api_secret": "LIVEKIT_API_SECRET"}

_PERMISSIONS = ("can_publish", "can_subscribe", "can_publish_data", "can_update_metadata", "hidden")


def describe(blueprint: Blueprint, source: object) -> dict[str, Any]:
    """Return the manifest. ``source`` is the user's object, which shows the options that differ from their defaults.

    The manifest holds the app's credentials, if the app has any: often they come from a file that only the app
    reads. So the manifest is for the supervisor's memory. No code may log, serve or show the whole manifest.
    """
    server = blueprint.server
    options = _options_set(server, source)
    has_load_fnc = blueprint.load_fnc is not None
    load = getattr(server, "_load_fnc", None)
    unfound = load.why if isinstance(load, Unfound) else None
    manifest = {
        "agent_name": server._agent_name,
        "worker_type": _worker_type(server),
        "permissions": _permissions(server),
        "options": options,
        "load_threshold": _load_threshold(server) if has_load_fnc else None,
        "without_effect": without_effect(options, maker_of(source), has_load_fnc=has_load_fnc, unfound=unfound),
        "session_end_seconds": min(blueprint.part.session_end_seconds, _FOR_EVER),
        "livekit_agents_version": VERSION,
    }
    for name in (*_CREDENTIALS, "http_proxy", "deployment"):
        value = getattr(server, f"_{name}", "")
        if value:
            manifest[name] = value
    return manifest


def export_credentials(server: AgentServer) -> dict[str, str]:
    """Return the environment variables by which jobs find the server. LiveKit's own worker sets them, too."""
    values = {variable: getattr(server, f"_{name}", "") for name, variable in _CREDENTIALS.items()}
    return {variable: value for variable, value in values.items() if value}


def _worker_type(server: AgentServer) -> str:
    kind: str = agent.JobType.Name(server._server_type.value)
    return kind.removeprefix("JT_").lower()


def _permissions(server: AgentServer) -> dict[str, Any]:
    permissions = server._permissions
    found: dict[str, Any] = {name: getattr(permissions, name) for name in _PERMISSIONS if hasattr(permissions, name)}
    found["can_publish_sources"] = [int(source) for source in getattr(permissions, "can_publish_sources", ())]
    return found


def _options_set(server: AgentServer, source: object) -> dict[str, Any]:
    """Return the options that the user has set. An option with values for development and production has both."""
    maker = WorkerOptions if isinstance(source, WorkerOptions) else AgentServer
    parameters = inspect.signature(maker).parameters
    found = {}
    for name in _OPTIONS:
        attribute = _ELSEWHERE.get(name, f"_{name}")
        value = getattr(source, name, None) if maker is WorkerOptions else getattr(server, attribute, None)
        if name in parameters and value != parameters[name].default and value is not None:
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if hasattr(value, "dev_default"):
        return {"dev": _plain(value.dev_default), "prod": _plain(value.prod_default)}
    if isinstance(value, float) and math.isinf(value):
        return None  # no limit
    return value


def _load_threshold(server: AgentServer) -> float | None:
    """Return the load from which on the worker is full, for this command; ``None`` if there is none.

    Raises :class:`AppLoadError` if the threshold is not a number.
    """
    value = of_command(_plain(getattr(server, "_load_threshold", None)), os.environ.get(COMMAND))
    if value is None:
        return None
    try:
        threshold = float(value)
    except (TypeError, ValueError, OverflowError):
        threshold = math.nan
    if math.isnan(threshold):
        raise AppLoadError(f"load_threshold is {value!r}; it must be a number, such as 0.7")
    return None if math.isinf(threshold) else threshold


def runs_in_threads(server: AgentServer) -> bool:
    return getattr(server, "_job_executor_type", None) is JobExecutorType.THREAD
