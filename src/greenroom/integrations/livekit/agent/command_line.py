"""Arguments that LiveKit's own command line would read, as ``sys.argv`` has them at the call of ``cli.run_app``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import typer
from livekit.agents import AgentServer, WorkerOptions
from livekit.agents.cli import cli

from ....errors import AppLoadError
from .blueprint import server_of

__all__ = ["with_arguments"]

_OPTIONS = {"drain_timeout": "drain_timeout"}
"""Arguments that have effect, each with the option of a server that it sets."""
_SETTINGS = {"url": "LIVEKIT_URL", "api_key": "LIVEKIT_API_KEY", "api_secret": "LIVEKIT_API_SECRET"}
"""Arguments that the operator sets by a variable. The worker and its jobs connect with the values of the variables."""
_COMMANDS = ("start", "dev")
_DEVELOPMENT = "LIVEKIT_DEV_MODE"
_LOG_LEVEL = "LIVEKIT_LOG_LEVEL"


def with_arguments(source: Any, arguments: list[str]) -> Any:
    """Return the server with the options that the arguments set, as this release of LiveKit reads them.

    Raises :class:`AppLoadError` for arguments that LiveKit's command line would reject, or that have no effect.
    """
    if not isinstance(source, (AgentServer, WorkerOptions)):
        return source  # a later check raises the error
    name, *rest = arguments or [""]
    if name not in _COMMANDS:
        raise AppLoadError(
            f"sys.argv[1:] is {arguments} at the call of cli.run_app in the main block: under Greenroom it must begin "
            f"with start or dev. Leave its first item unchanged; for other commands, run the script with python"
        )
    if name == "dev":
        os.environ[_DEVELOPMENT] = "1"
    given = _parsed(source, name, rest)
    level = given.pop("log_level", None)
    if level is not None:
        os.environ[_LOG_LEVEL] = getattr(level, "value", level)
    for option in sorted(given.keys() - _OPTIONS.keys()):
        remedy = f"set {_SETTINGS[option]}" if option in _SETTINGS else "leave it out"
        flag = f"--{'no-' if given[option] is False else ''}{option.replace('_', '-')}"
        raise AppLoadError(f"{flag} of LiveKit's command line has no effect under Greenroom: {remedy}")
    return _changed(source, {_OPTIONS[option]: value for option, value in given.items()})


def _parsed(source: Any, name: str, arguments: list[str]) -> dict[str, Any]:
    command: Any = typer.main.get_command(_builder()(server_of(source)))
    try:
        context = command.commands[name].make_context(name, list(arguments))
    except Exception as error:  # click's error: typer may use its own copy of click
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        raise AppLoadError(
            f"cli.run_app does not understand sys.argv[1:] {[name, *arguments]}: {message}. If the "
            f"script has options of its own, remove them before the call: sys.argv = sys.argv[:2]"
        ) from None
    return {
        option: value
        for option, value in context.params.items()
        if getattr(context.get_parameter_source(option), "name", "") == "COMMANDLINE"
    }


def _builder() -> Any:
    build = getattr(cli, "_build_cli", None)
    if build is None:
        from livekit.agents.cli import _legacy  # imported late: older versions do not have it

        build = _legacy._build_cli
    return build


def _changed(source: Any, options: Mapping[str, Any]) -> Any:
    if not options:
        return source
    if isinstance(source, WorkerOptions):
        return dataclasses.replace(source, **options)
    for option, value in options.items():
        setattr(source, f"_{option}", value)
    return source
