"""The settings that hold: the operator's, and what the app that is served sets beside."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..app_setting import AppSettings
from ..errors import OptionError
from ..pool import ProcessPool
from ..pool.events import Event, ProcessWarmed, ZygoteStarted
from ..pool.log_fields import log_fields
from ..settings import Settings
from ..settings.fields import all_settings
from ..settings.layers import Resolved
from ..settings.values import as_text

__all__ = ["SettingsInForce"]

_logger = logging.getLogger("greenroom")


class SettingsInForce:
    """Follows the app from :meth:`take_on` on, as a reload may bring another; ``on_change`` is told what holds."""

    def __init__(self, resolved: Resolved, pool: ProcessPool, on_change: Callable[[Settings], object]) -> None:
        self._resolved = resolved
        self._pool = pool
        self._on_change = on_change
        self._heard: AppSettings = {}

    def take_on(self) -> Settings:
        """What holds with the app that has loaded. Raises :class:`OptionError`, in the app's words."""
        self._pool.subscribe(self._on_event)
        self._heard = self._pool.app_settings
        return self._settle()

    def _on_event(self, event: Event) -> None:
        # A process that is spawned tells of the app when it is warm; a zygote, before there is a process.
        if not isinstance(event, (ZygoteStarted, ProcessWarmed)) or not self._pool.is_open:
            return
        heard = self._pool.app_settings
        if heard == self._heard:
            return
        self._heard = heard
        try:
            settings = self._settle()
        except OptionError as error:
            _logger.error("%s; what held before still holds", error)
        else:
            self._on_change(settings)

    def _settle(self) -> Settings:
        resolved = self._resolved.with_app(self._heard)
        for name, text in _told(resolved, self._heard):
            _logger.info("%s", text, extra=log_fields("app_setting", setting=name))
        return resolved.settings


def _told(resolved: Resolved, heard: AppSettings) -> list[tuple[str, str]]:
    """A sentence for each setting of the app's: that it holds, or who has set it instead."""
    found = []
    for name, said in heard.items():
        setting, origin = all_settings()[name], resolved.origins[name]
        if origin.kind == "app":
            found.append((name, f"from the app: {said.origin}"))
        else:
            value = as_text(setting, setting.of(resolved.settings))
            found.append((name, f"not from the app: {said.origin}; it is {value} by {origin}"))
    return found
