"""Settings of Greenroom's that an app sets in its own framework's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import AppLoadError
from .texts import clean, cut_end

__all__ = ["AppSetting", "AppSettings", "packed", "unpacked"]

_LONGEST = 300
"""Characters of a text."""


@dataclass(frozen=True, slots=True)
class AppSetting:
    """A value for one setting. It holds where the operator of the pool or worker has set none."""

    value: bool | int | float | str | None
    """``None``: off."""
    origin: str
    """The words that say so, such as ``AgentServer(initialize_process_timeout=40)``."""


AppSettings = Mapping[str, AppSetting]
"""By the name of Greenroom's setting."""


def packed(settings: AppSettings) -> dict[str, Any]:
    """Plain data, to be sent to the supervisor."""
    return {name: [setting.value, setting.origin] for name, setting in settings.items()}


def unpacked(told: Mapping[str, Any]) -> dict[str, AppSetting]:
    """Return what was packed. User code runs where it comes from, so texts are cut and cleaned.

    Raises :class:`AppLoadError` for anything else.
    """
    found = {}
    for name, pair in told.items():
        match pair:
            case [bool() | int() | float() | str() | None as value, str() as origin]:
                found[_tidy(name)] = AppSetting(_tidy(value) if isinstance(value, str) else value, _tidy(origin))
            case _:
                raise AppLoadError(f"the app tells of its setting {_tidy(name)!r} in a form that is not known")
    return found


def _tidy(text: str) -> str:
    return clean(cut_end(text, _LONGEST))
