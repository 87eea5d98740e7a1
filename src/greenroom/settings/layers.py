"""Settings in layers: defaults, the app, a file, the environment, flags. A later layer overrides an earlier one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..app_facts import AppSettings
from ..errors import OptionError
from . import DEFAULTS, Settings
from .environment import from_environment
from .fields import OFF, all_settings, groups
from .file import from_file
from .origins import Given, Layer, Origin
from .values import convert, redacted

__all__ = ["Resolved", "from_flags", "resolve"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings that hold, and the origin of each."""

    command: str
    settings: Settings
    origins: Mapping[str, Origin]
    """Origin of each value, by the name of the setting."""
    file: Path | None
    given: Layer = field(default_factory=dict)
    """Values that the operator has set by file, environment or flag."""

    @property
    def left_to_app(self) -> Set[str]:
        """Names of the settings that the operator has not set."""
        return all_settings().keys() - self.given.keys()

    def with_app(self, app: AppSettings) -> Resolved:
        """Return the settings for an app that sets these values.

        Raises ``OptionError`` for a wrong value. The message has the code of the app that sets the value.
        """
        return _resolved(self.command, _from_app(app), self.given, self.file)


def resolve(
    command: str, *, flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None
) -> Resolved:
    """Return the settings of ``dev`` or ``start``. Raises ``OptionError`` for a wrong value, with its origin.

    ``flags`` has the values from the command line, by the setting's name. A value of the wrong type is an error even
    if a later layer overrides it.
    """
    layers = [from_file(file) if file else {}, from_environment(environ), from_flags(flags)]
    given: Layer = {}
    for layer in layers:
        given |= layer
    return _resolved(command, {}, given, file)


def _resolved(command: str, app: Layer, given: Layer, file: Path | None) -> Resolved:
    merged = app | given
    origins = {name: merged[name].origin if name in merged else Origin("default", command) for name in all_settings()}
    return Resolved(command, _built(DEFAULTS[command], merged), origins, file, given)


def _from_app(app: AppSettings) -> Layer:
    found = {}
    for name, one in app.items():
        setting = all_settings().get(name)
        if setting is None:
            raise OptionError(f"{one.origin}: the app sets {name}, which is not a setting")
        raw = OFF if one.value is None else one.value
        value = convert(setting, raw, is_text=False, subject=f"{one.origin}: {name}")
        found[name] = Given(value, Origin("app", one.origin))
    return found


def from_flags(flags: Mapping[str, Any]) -> Layer:
    """Return the settings that the command line sets. Raises ``OptionError`` for a value of the wrong type."""
    found = {}
    for name, raw in flags.items():
        setting = all_settings()[name]
        value = convert(setting, raw, is_text=isinstance(raw, str), subject=setting.flag)
        found[name] = Given(value, Origin("flag", setting.flag))
    return found


def _built(defaults: Settings, given: Layer) -> Settings:
    changed = {}
    try:
        for group in groups():
            values = {name: one.value for name, one in given.items() if all_settings()[name].group == group}
            changed[group] = dataclasses.replace(getattr(defaults, group), **values)
        return dataclasses.replace(defaults, **changed)
    except OptionError as error:
        raise OptionError(_with_origins(str(error), given)) from None


def _with_origins(message: str, given: Layer) -> str:
    """Add the origins of the settings that an error message names, and hide secrets.

    The types that check values do not know the origins, but their messages name the settings.
    """
    named = dict.fromkeys(re.findall(r"\w+", message))
    origins = "; ".join(str(given[name].origin) for name in named if name in given)
    message = redacted(message, {name: one.value for name, one in given.items()}, all_settings())
    return f"{origins}: {message}" if origins else message
