"""The levels of LiveKit's loggers, as LiveKit's own command line sets them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from livekit.agents import Plugin
from livekit.agents.cli import log

from ...errors import AppLoadError

__all__ = ["COMMAND", "Level", "of_command", "set_levels"]

_OPERATORS = "GREENROOM_LOG_LEVEL"
"""Also set by a worker whose operator chose the level by a flag or in a file."""
_LIVEKITS = "LIVEKIT_LOG_LEVEL"
COMMAND = "GREENROOM_COMMAND"
"""Set by a worker; written out, since the zygote has no use for the modules of the settings."""
_NUMBERS = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


class Level:
    """The level from which an app is heard, and whether the operator of the worker chose it."""

    def __init__(self, set_by_app: Any, environment: Mapping[str, str]) -> None:
        """``set_by_app``: a name, one name for each command, or ``None``. Raises :class:`AppLoadError`."""
        choices = [(name, environment.get(name, "").strip()) for name in (_OPERATORS, _LIVEKITS)]
        choices.append(("log_level", of_command(set_by_app, environment.get(COMMAND)) or ""))
        self.origin, name = next((choice for choice in choices if choice[1]), ("", "INFO"))
        self.name = name.upper()
        self.number = _number(self.origin, name)
        self.is_operators = self.origin == _OPERATORS
        self.is_apps = self.origin == "log_level"
        self.is_default = not self.origin


def set_levels(level: int) -> None:
    """Set the level of each logger that has none: of noisy libraries, of LiveKit, and of its plugins.

    LiveKit counts its own logger "livekit" among the noisy ones. So "livekit.agents" needs a level of its own.
    """
    for name in getattr(log, "NOISY_LOGGERS", ()):
        _set(logging.getLogger(name), logging.WARNING)
    _set(logging.getLogger("livekit.agents"), level)
    for plugin in Plugin.registered_plugins:
        _set(plugin.logger, level)
    Plugin.emitter.on("plugin_registered", lambda plugin: _set(plugin.logger, level))


def of_command(value: Any, command: str | None) -> Any:
    """Return the value for this command, of an option that has one for development and one for production."""
    return value["dev" if command == "dev" else "prod"] if isinstance(value, dict) else value


def _number(origin: str, name: str) -> int:
    try:
        return _NUMBERS[name.upper()]
    except KeyError:
        raise AppLoadError(f"{origin} is {name!r}; it must be one of {', '.join(_NUMBERS)}") from None


def _set(logger: logging.Logger | None, level: int) -> None:
    if logger is not None and logger.level == logging.NOTSET:
        logger.setLevel(level)
