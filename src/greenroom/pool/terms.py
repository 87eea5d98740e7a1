"""What holds in a pool: what its operator has set, and what the app sets beside."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from ..app_setting import AppSettings
from ..errors import AppLoadError, OptionError
from ..options import PoolOptions

__all__ = ["Terms"]

_NOT_THE_APPS = {"preload_timeout", "start_method"}
"""Without these there would be no app to ask."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The operator's options, defaults filled in; and the names of those that the app does not change."""

    options: PoolOptions
    fixed: frozenset[str]

    def with_app(self, settings: AppSettings) -> PoolOptions:
        """What holds with an app that sets these. Raises :class:`AppLoadError` for a value that cannot be."""
        names = {field.name for field in fields(PoolOptions)} - self.fixed - _NOT_THE_APPS
        said = {name: setting for name, setting in settings.items() if name in names}
        values: dict[str, Any] = {name: setting.value for name, setting in said.items()}
        try:
            return replace(self.options, **values)
        except OptionError as error:
            origins = [said[name].origin for name in re.findall(r"\w+", str(error)) if name in said]
            raise AppLoadError(f"{'; '.join(dict.fromkeys(origins))}: {error}") from None

    def resized(self, num_idle: int, max_idle: int | None) -> Terms:
        """From now on the numbers of idle processes are the operator's, whatever an app says."""
        options = replace(self.options, num_idle_processes=num_idle, max_idle_processes=max_idle)
        return Terms(options, self.fixed.union(_SIZES))

    def left_to_app(self, names: Iterable[str]) -> Terms:
        """These too are the app's to change, although they were given: as defaults."""
        return Terms(self.options, self.fixed.difference(names))


_SIZES = ("num_idle_processes", "max_idle_processes")
