"""Levels of LiveKit's loggers, as LiveKit's own command line sets them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from livekit.agents import Plugin
from livekit.agents.cli import log

from ....errors import AppLoadError

__all__ = ["COMMAND", "Level", "of_command", "set_levels"]

_OPERATORS = "GREENROOM_LOG_LEVEL"
"""Variable of the operator. A worker sets it, too, if the operator sets the level by a flag or in a file."""
_LIVEKITS = "LIVEKIT_LOG_LEVEL"
COMMAND = "GREENROOM_COMMAND"
"""Variable that a worker sets. The name stands here, since the zygote does not import the modules of the settings."""
_NUMBERS = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


class Level:
    """Lowest level that an app logs, and its origin: the operator, the app, LiveKit's variable, or the default."""

    def __init__(self, set_by_app: Any, environment: Mapping[str, str]) -> None:
        """Choose the level. ``set_by_app`` is a name, a dict with a name for each command, or ``None``.

        Raises :class:`AppLoadError` for an unknown name.
        """
        choices = [(name, environment.get(name, "").strip()) for name in (_OPERATORS, _LIVEKITS)]
        choices.append(("log_level", of_command(set_by_app, environment.get(COMMAND)) or ""))
        self.origin, name = next((choice for choice in choices if choice[1]), ("", "INFO"))
        self.name = name.upper()
        self.number = _number(self.origin, name)
        self.is_operators = self.origin == _OPERATORS
        self.is_apps = self.origin == "log_level"
        self.is_default = not self.origin


def set_levels(level: int) -> None:
    """Set the level of the loggers of noisy libraries, of LiveKit and of its plugins. A level that is set stays.

    LiveKit's list of noisy loggers contains its own logger "livekit". So "livekit.agents" needs a level of its own.
    """
    for name in getattr(log, "NOISY_LOGGERS", ()):
        _set(logging.getLogger(name), logging.WARNING)
    _set(logging.getLogger("livekit.agents"), level)
    for plugin in Plugin.registered_plugins:
        _set(plugin.logger, level)
    Plugin.emitter.on("plugin_registered", lambda plugin: _set(plugin.logger, level))


def of_command(value: Any, command: str | None) -> Any:
    """Return the option's value for this command. An option may have two values: for development and production."""
    return value["dev" if command == "dev" else "prod"] if isinstance(value, dict) else value


def _number(origin: str, name: str) -> int:
    try:
        return _NUMBERS[name.upper()]
    except KeyError:
        raise AppLoadError(f"{origin} is {name!r}; it must be one of {', '.join(_NUMBERS)}") from None


def _set(logger: logging.Logger | None, level: int) -> None:
    if logger is not None and logger.level == logging.NOTSET:
        logger.setLevel(level)
