"""What Greenroom needs to know of a livekit-agents app, whatever its release."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import livekit.agents
from livekit.agents import AgentServer, WorkerOptions

from ...errors import AppLoadError

__all__ = [
    "GUARDS",
    "VERSION",
    "Blueprint",
    "Part",
    "fill",
    "is_server",
    "maker_of",
    "nothing_to_set_up",
    "server_of",
]

VERSION: str = livekit.agents.__version__


GUARDS = 15.0 + 60.0
"""Seconds: LiveKit's own bounds for the entrypoint to return at a shutdown, and for its session to close."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a process plays: the functions that LiveKit's sequence calls in it, and the settings that concern it."""

    entrypoint_fnc: Callable[..., Any]
    setup_fnc: Callable[..., Any]
    session_end_fnc: Callable[..., Any] | None
    simulation_end_fnc: Callable[..., Any] | None
    session_end_timeout: float | None
    """Seconds; ``None`` is no bound."""
    http_proxy: str | None

    @property
    def session_end_seconds(self) -> float:
        """For how long ``on_session_end`` may run: 0 if there is none."""
        if self.session_end_fnc is None:
            return 0.0
        return math.inf if self.session_end_timeout is None else self.session_end_timeout

    @property
    def end_timeout(self) -> float:
        """For how long LiveKit's sequence may take up to the shutdown callbacks."""
        return GUARDS + self.session_end_seconds


@dataclass(frozen=True, slots=True)
class Blueprint:
    """An ``AgentServer``: the part that its processes play, and what is done for them before."""

    server: AgentServer
    part: Part
    request_fnc: Callable[..., Any] | None
    preload_modules: tuple[str, ...]

    @classmethod
    def of(cls, server: AgentServer) -> Blueprint:
        """Raises :class:`AppLoadError` for a server that has nothing to run, or more than rooms to serve."""
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
        return cls(server, part, _own_request_fnc(server), tuple(getattr(server, "_preload_modules", ())))


def _check_that_it_serves_rooms_only(server: AgentServer) -> None:
    """Refuse what livekit-agents 2 serves beside rooms, and Greenroom does not."""
    asked = [f"a2a_session(endpoint={name!r})" for name in getattr(server, "_a2a_endpoints", ())]
    asked += [f"the HTTP route {path}" for path in _routes_of_its_own(server)]
    if getattr(server, "_storage", None) is not None:
        asked.append("storage")
    if asked:
        raise AppLoadError(
            f"the AgentServer has {', '.join(asked)}: Greenroom serves rooms only. Serve these from a program of "
            f"their own, under livekit-agents' own worker (python agent.py start), and leave them out here"
        )


def _routes_of_its_own(server: AgentServer) -> list[str]:
    """Those of ``server.http`` and ``server.mount()``; each A2A endpoint is mounted there as well."""
    http = getattr(server, "_http", None)
    endpoints = {f"/{name}" for name in getattr(server, "_a2a_endpoints", ())}
    return [] if http is None else [route.path for route in http._routes if route.path not in endpoints]


def is_server(value: object) -> bool:
    return isinstance(value, (AgentServer, WorkerOptions))


def maker_of(value: object) -> str:
    """Return the name under which the user has made it."""
    return "WorkerOptions" if isinstance(value, WorkerOptions) else "AgentServer"


def server_of(value: AgentServer | WorkerOptions) -> AgentServer:
    """The older ``WorkerOptions`` become an ``AgentServer`` by LiveKit's own conversion."""
    return AgentServer.from_server_options(value) if isinstance(value, WorkerOptions) else value


def fill(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that this release's ``function`` takes.

    Raises :class:`AppLoadError` if it insists on one that is not among them: a release that is
    too new, and whose jobs would not run.
    """
    names, needed = _parameters(function)
    if needed - values.keys():
        name = getattr(function, "__qualname__", function)
        raise AppLoadError(
            f"livekit-agents {VERSION} is not known to this release of Greenroom: its {name} needs "
            f"{', '.join(sorted(needed - values.keys()))}; install an earlier livekit-agents or a later Greenroom"
        )
    return {name: value for name, value in values.items() if name in names}


@functools.cache  # asked in the zygote, so that no process has to: inspecting copies a third of a megabyte of it
def _parameters(function: Callable[..., Any]) -> tuple[frozenset[str], frozenset[str]]:
    """The names of all parameters, and of those that must be given."""
    parameters = inspect.signature(function).parameters
    needed = {name for name, parameter in parameters.items() if _is_needed(parameter)}
    return frozenset(parameters), frozenset(needed)


def _is_needed(parameter: inspect.Parameter) -> bool:
    is_variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and not is_variadic


def _own_request_fnc(server: AgentServer) -> Callable[..., Any] | None:
    """The user's; LiveKit's default one, which accepts everything, is none."""
    request = server._request_fnc
    is_default = getattr(request, "__module__", "") == AgentServer.__module__
    return None if is_default else request


def nothing_to_set_up(process: object) -> None:
    return None
