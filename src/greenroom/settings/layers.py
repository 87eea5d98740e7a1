"""Settings in layers: defaults, then a file, then the environment, then flags. The last one that speaks holds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OptionError
from . import DEFAULTS, Settings
from .environment import from_environment
from .fields import all_settings, groups
from .file import from_file
from .origins import Given, Layer, Origin
from .values import convert, redacted

__all__ = ["Resolved", "from_flags", "resolve"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What holds, and where each of it comes from."""

    command: str
    settings: Settings
    origins: Mapping[str, Origin]
    """By the setting's name."""
    file: Path | None


def resolve(
    command: str, *, flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None
) -> Resolved:
    """The settings of ``dev`` or ``start``. ``OptionError`` names what is wrong together with its origin.

    ``flags`` holds what was given on the command line, as text, by the setting's name. A wrong value is refused
    also where a later layer would have replaced it.
    """
    layers = [from_file(file) if file else {}, from_environment(environ), from_flags(flags)]
    given: Layer = {}
    for layer in layers:
        given |= layer
    origins = {name: given[name].origin if name in given else Origin("default", command) for name in all_settings()}
    return Resolved(command, _built(DEFAULTS[command], given), origins, file)


def from_flags(flags: Mapping[str, Any]) -> Layer:
    """What the command line sets."""
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
    """The types that judge values know nothing of origins. Their messages name the settings they are about."""
    named = dict.fromkeys(re.findall(r"\w+", message))
    origins = "; ".join(str(given[name].origin) for name in named if name in given)
    message = redacted(message, {name: one.value for name, one in given.items()}, all_settings())
    return f"{origins}: {message}" if origins else message
