"""Facts about an app that the supervisor needs, since the supervisor never imports the app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .clean_text import clean, cut_end, one_line
from .errors import AppLoadError

__all__ = ["LONGEST_END", "REQUEST", "AppFacts", "AppSetting", "AppSettings", "packed", "unpacked"]

REQUEST = "request"
"""Topic of questions to the app's request hook."""

LONGEST_END = 1e9
"""Largest :attr:`AppFacts.end_timeout`, in seconds."""
LONGEST_VERSION = 100
"""Most characters of :attr:`AppFacts.version`. It is the label of a metric."""


@dataclass(slots=True)
class AppFacts:
    """Plain data that a zygote or a spawned process sends after it has loaded the app."""

    has_request: bool
    manifest: dict[str, Any]
    end_timeout: float = 0.0
    """Seconds from the moment when a job begins to end by itself to its shutdown callbacks."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Values that the app sets for Greenroom's settings: by name, a pair of value and origin."""

    topics: list[str] = field(default_factory=list)
    """Topics of an integration that the resident process answers or hears, besides the request hook."""
    version: str = ""
    """Version of the app's code, in one line; empty if the app names none."""

    @property
    def own_settings(self) -> AppSettings:
        """Settings that the app sets, also those of the server."""
        return unpacked(self.settings)

    def __post_init__(self) -> None:
        # Both sides make this object, so the check is here. NaN becomes 0: no deadline can be NaN or infinity.
        self.end_timeout = min(max(0.0, self.end_timeout), LONGEST_END)
        self.version = one_line(self.version[:LONGEST_VERSION])


_LONGEST = 300
"""Most characters of a name, a value or an origin."""


@dataclass(frozen=True, slots=True)
class AppSetting:
    """Value that an app sets for one setting. A value from the operator of the pool or worker overrides it."""

    value: bool | int | float | str | None
    """Value of the setting; ``None`` stands for ``off``."""
    origin: str
    """Code of the app that sets the value, such as ``AgentServer(initialize_process_timeout=40)``."""


AppSettings = Mapping[str, AppSetting]
"""Values that an app sets, by the name of the setting."""


def packed(settings: AppSettings) -> dict[str, Any]:
    """Return the settings as plain data for the supervisor."""
    return {name: [setting.value, setting.origin] for name, setting in settings.items()}


def unpacked(data: Mapping[str, Any]) -> dict[str, AppSetting]:
    """Return the settings that :func:`packed` was given. Texts are cut and cleaned, since the sender runs user code.

    Raises :class:`AppLoadError` for data of any other form.
    """
    found = {}
    for name, pair in data.items():
        match pair:
            case [bool() | int() | float() | str() | None as value, str() as origin]:
                found[_tidy(name)] = AppSetting(_tidy(value) if isinstance(value, str) else value, _tidy(origin))
            case _:
                raise AppLoadError(f"app setting {_tidy(name)!r} has an unknown form")
    return found


def _tidy(text: str) -> str:
    return clean(cut_end(text, _LONGEST))
