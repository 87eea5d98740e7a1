"""What the supervisor is told of a livekit-agents app, as plain data: it never imports the app itself."""

from __future__ import annotations

import inspect
import math
from typing import Any

from livekit.agents import AgentServer, JobExecutorType, WorkerOptions
from livekit.protocol import agent

from .app_settings import without_effect
from .blueprint import VERSION, Blueprint, maker_of

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
"""Where an ``AgentServer`` has what is not under the option's own name."""


_FOR_EVER = 1e9
"""Seconds, for what has no bound."""

_CREDENTIALS = {"ws_url": "LIVEKIT_URL", "api_key": "LIVEKIT_API_KEY", "api_secret": "LIVEKIT_API_SECRET"}

_PERMISSIONS = ("can_publish", "can_subscribe", "can_publish_data", "can_update_metadata", "hidden")


def describe(blueprint: Blueprint, source: object) -> dict[str, Any]:
    """The manifest. ``source`` is the object that the user made: it tells what was set, and what is a default.

    It holds the credentials, if the app knows any: often they come from a file that only the app
    reads. So it is for the supervisor's memory, and nothing may log, serve or show it as a whole.
    """
    server = blueprint.server
    options = _options_set(server, source)
    has_load_fnc = _has_load_fnc(server)
    manifest = {
        "agent_name": server._agent_name,
        "worker_type": _worker_type(server),
        "permissions": _permissions(server),
        "options": options,
        "has_request_hook": blueprint.request_fnc is not None,
        "has_load_fnc": has_load_fnc,
        "without_effect": without_effect(options, maker_of(source), has_load_fnc),
        "session_end_seconds": min(blueprint.part.session_end_seconds, _FOR_EVER),
        "livekit_agents_version": VERSION,
    }
    for name in (*_CREDENTIALS, "http_proxy", "deployment"):
        value = getattr(server, f"_{name}", "")
        if value:
            manifest[name] = value
    return manifest


def export_credentials(server: AgentServer) -> dict[str, str]:
    """The environment by which LiveKit's own worker lets its jobs find the server."""
    values = {variable: getattr(server, f"_{name}", "") for name, variable in _CREDENTIALS.items()}
    return {variable: value for variable, value in values.items() if value}


def _worker_type(server: AgentServer) -> str:
    kind: str = agent.JobType.Name(server._server_type.value)
    return kind.removeprefix("JT_").lower()


def _permissions(server: AgentServer) -> dict[str, Any]:
    permissions = server._permissions
    told: dict[str, Any] = {name: getattr(permissions, name) for name in _PERMISSIONS if hasattr(permissions, name)}
    told["can_publish_sources"] = [int(source) for source in getattr(permissions, "can_publish_sources", ())]
    return told


def _options_set(server: AgentServer, source: object) -> dict[str, Any]:
    """Only what the user has set. A setting with one value in development and another in production is both."""
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


def _has_load_fnc(server: AgentServer) -> bool:
    load = getattr(server, "_load_fnc", None)
    return load is not None and getattr(load, "__module__", "") != AgentServer.__module__


def runs_in_threads(server: AgentServer) -> bool:
    return getattr(server, "_job_executor_type", None) is JobExecutorType.THREAD
