"""Options of a pool, set by its operator or by the app."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from ...app_facts import AppSettings
from ...errors import AppLoadError, OptionError
from ...options import PoolOptions

__all__ = ["APP_OPTIONS", "EffectiveOptions"]

_NOT_THE_APPS = {"preload_timeout", "start_method", "huge_pages_seconds", "flight_recorder_mb", "walls"}
"""Options that are needed before the app is loaded."""
APP_OPTIONS = frozenset(field.name for field in fields(PoolOptions)) - _NOT_THE_APPS
"""Options that an app can set."""


@dataclass(frozen=True, slots=True)
class EffectiveOptions:
    """Options of the operator, with defaults, and the names of those that the app cannot change."""

    options: PoolOptions
    fixed: frozenset[str]

    def with_app(self, settings: AppSettings) -> PoolOptions:
        """Return the options with the settings of an app. Raises :class:`AppLoadError` for an invalid value."""
        open_names = APP_OPTIONS - self.fixed
        set_by_app = {name: setting for name, setting in settings.items() if name in open_names}
        if not set_by_app:
            return self.options
        values: dict[str, Any] = {name: setting.value for name, setting in set_by_app.items()}
        try:
            return replace(self.options, **values)
        except OptionError as error:
            origins = [set_by_app[name].origin for name in re.findall(r"\w+", str(error)) if name in set_by_app]
            raise AppLoadError(f"{'; '.join(dict.fromkeys(origins))}: {error}") from None

    def resized(self, num_idle: int, max_idle: int | None) -> EffectiveOptions:
        """Return effective with new numbers of idle processes, which an app cannot change."""
        options = replace(self.options, num_idle_processes=num_idle, max_idle_processes=max_idle)
        return EffectiveOptions(options, self.fixed.union(_SIZES))

    def left_to_app(self, names: Iterable[str]) -> EffectiveOptions:
        """Return effective in which the app can change these options, although the operator has set them."""
        return EffectiveOptions(self.options, self.fixed.difference(names))


_SIZES = ("num_idle_processes", "max_idle_processes")
