"""Facts about a livekit-agents app that Greenroom needs, read in the same way from each release."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import livekit.agents
from livekit.agents import AgentServer, WorkerOptions

from ....errors import AppLoadError

__all__ = [
    "GUARDS",
    "VERSION",
    "Blueprint",
    "Part",
    "Unfound",
    "fill",
    "is_server",
    "maker_of",
    "nothing_to_set_up",
    "server_of",
]

VERSION: str = livekit.agents.__version__


GUARDS = 15.0 + 60.0
"""Seconds of LiveKit's own limits: for the entrypoint's return at a shutdown, and for the close of its session."""


@dataclass(frozen=True, slots=True)
class Part:
    """Functions that LiveKit's sequence calls in a job's process, and the settings of that process."""

    entrypoint_fnc: Callable[..., Any]
    setup_fnc: Callable[..., Any]
    session_end_fnc: Callable[..., Any] | None
    simulation_end_fnc: Callable[..., Any] | None
    session_end_timeout: float | None
    """Seconds; ``None`` for no limit."""
    http_proxy: str | None

    @property
    def session_end_seconds(self) -> float:
        """Longest run of ``on_session_end``, in seconds; 0 if there is no such function."""
        if self.session_end_fnc is None:
            return 0.0
        return math.inf if self.session_end_timeout is None else self.session_end_timeout

    @property
    def end_timeout(self) -> float:
        """Longest time of LiveKit's sequence up to the shutdown callbacks, in seconds."""
        return GUARDS + self.session_end_seconds


@dataclass(frozen=True, slots=True)
class Blueprint:
    """``AgentServer``, with the part of its jobs' processes, its other functions, and the modules to preload."""

    server: AgentServer
    part: Part
    request_fnc: Callable[..., Any] | None
    load_fnc: Callable[..., Any] | None
    preload_modules: tuple[str, ...]

    @classmethod
    def of(cls, server: AgentServer) -> Blueprint:
        """Read a server. Raises :class:`AppLoadError` if it has no entrypoint, or serves anything except rooms."""
        _check_that_it_serves_rooms_only(server)
        entrypoint = server._entrypoint_fnc
        if entrypoint is None:
            raise AppLoadError(
                "the AgentServer has no entrypoint; mark one with @server.rtc_session(agent_name=...) "
                "at the top level of the module"
            )
        part = Part(
            entrypoint_fnc=entrypoint,
            setup_fnc=getattr(server, "_setup_fnc", None) or nothing_to_set_up,
            session_end_fnc=getattr(server, "_session_end_fnc", None),
            simulation_end_fnc=getattr(server, "_simulation_end_fnc", None),
            session_end_timeout=getattr(server, "_session_end_timeout", 300.0),
            http_proxy=getattr(server, "_http_proxy", None) or None,
        )
        modules = tuple(getattr(server, "_preload_modules", ()))
        return cls(server, part, _own_request_fnc(server), _own_load_fnc(server), modules)


def _check_that_it_serves_rooms_only(server: AgentServer) -> None:
    """Raise :class:`AppLoadError` if the server uses features of livekit-agents 2 that Greenroom does not have."""
    unsupported = [f"a2a_session(endpoint={name!r})" for name in getattr(server, "_a2a_endpoints", ())]
    unsupported += [f"the HTTP route {path}" for path in _routes_of_its_own(server)]
    if getattr(server, "_storage", None) is not None:
        unsupported.append("storage")
    if unsupported:
        raise AppLoadError(
            f"the AgentServer has {', '.join(unsupported)}: Greenroom serves rooms only. Move these to another program "
            f"with livekit-agents' own worker (python agent.py start)"
        )


def _routes_of_its_own(server: AgentServer) -> list[str]:
    """Return the routes of ``server.http`` and ``server.mount()``, without the A2A endpoints mounted there."""
    http = getattr(server, "_http", None)
    endpoints = {f"/{name}" for name in getattr(server, "_a2a_endpoints", ())}
    return [] if http is None else [route.path for route in http._routes if route.path not in endpoints]


def is_server(value: object) -> bool:
    return isinstance(value, (AgentServer, WorkerOptions))


def maker_of(value: object) -> str:
    """Return the name of the class from which the user has made the server."""
    return "WorkerOptions" if isinstance(value, WorkerOptions) else "AgentServer"


def server_of(value: AgentServer | WorkerOptions) -> AgentServer:
    """Return the server. LiveKit's own conversion makes an ``AgentServer`` of the older ``WorkerOptions``."""
    return AgentServer.from_server_options(value) if isinstance(value, WorkerOptions) else value


def fill(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that ``function`` takes in this release of livekit-agents.

    Raises :class:`AppLoadError` if the function requires another value. Then the release is too new, and its jobs
    would not run.
    """
    names, needed = _parameters(function)
    if needed - values.keys():
        name = getattr(function, "__qualname__", function)
        raise AppLoadError(
            f"livekit-agents {VERSION} is not known to this release of Greenroom: its {name} needs "
            f"{', '.join(sorted(needed - values.keys()))}; install an earlier livekit-agents or a later Greenroom"
        )
    return {name: value for name, value in values.items() if name in names}


@functools.cache  # the zygote fills the cache: inspect in a child would copy a third of a megabyte of shared memory
def _parameters(function: Callable[..., Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of all parameters, and of the required ones."""
    parameters = inspect.signature(function).parameters
    needed = {name for name, parameter in parameters.items() if _is_needed(parameter)}
    return frozenset(parameters), frozenset(needed)


def _is_needed(parameter: inspect.Parameter) -> bool:
    is_variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and not is_variadic


def _own_request_fnc(server: AgentServer) -> Callable[..., Any] | None:
    """Return the user's function; ``None`` for LiveKit's default, which accepts every job."""
    request = server._request_fnc
    is_default = getattr(request, "__module__", "") == AgentServer.__module__
    return None if is_default else request


def _own_load_fnc(server: AgentServer) -> Callable[..., Any] | None:
    """Return the user's function; ``None`` for LiveKit's default (CPU load), and if other processes cannot find it."""
    load = getattr(server, "_load_fnc", None)
    is_default = getattr(load, "__module__", "") == AgentServer.__module__
    return None if is_default or isinstance(load, Unfound) else load


class Unfound:
    """Stand-in for a function that exists in a script's process alone. ``why`` names the function and the cause."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __call__(self, *arguments: object) -> float:
        return 0.0


def nothing_to_set_up(process: object) -> None:
    return None
