"""The settings that hold: the operator's, and what the app that is served sets beside."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..app_setting import AppSettings
from ..errors import OptionError
from ..log_fields import log_fields
from ..pool import ProcessPool
from ..pool.events import Event, ProcessWarmed, ZygoteStarted
from ..settings import Settings
from ..settings.fields import all_settings
from ..settings.layers import Resolved
from ..settings.values import as_text

__all__ = ["SettingsInForce"]

_logger = logging.getLogger("greenroom")


class SettingsInForce:
    """Follows the app from :meth:`take_on` on, as a reload may bring another.

    ``on_change`` is told what holds, and whether an app was heard for the first time: one that is spawned tells of
    itself when its first process is warm, which may be long after :meth:`take_on`.
    """

    def __init__(self, resolved: Resolved, pool: ProcessPool, on_change: Callable[[Settings, bool], object]) -> None:
        self._resolved = resolved
        self._pool = pool
        self._on_change = on_change
        self._heard: AppSettings | None = None

    def take_on(self) -> Settings:
        """What holds with the app that has loaded. Raises :class:`OptionError`, in the app's words."""
        self._pool.subscribe(self._on_event)
        self._heard = self._pool.app_settings if self._pool.has_heard_app else None
        return self._settle()

    def _on_event(self, event: Event) -> None:
        # A process that is spawned tells of the app when it is warm; a zygote, before there is a process.
        if not isinstance(event, (ZygoteStarted, ProcessWarmed)) or not self._pool.is_open:
            return
        if not self._pool.has_heard_app or self._pool.app_settings == self._heard:
            return
        is_first, self._heard = self._heard is None, self._pool.app_settings
        try:
            settings = self._settle()
        except OptionError as error:
            _logger.error("%s; what held before still holds", error)
        else:
            self._on_change(settings, is_first)

    def _settle(self) -> Settings:
        heard = self._heard or {}
        resolved = self._resolved.with_app(heard)
        for name, text in _told(resolved, heard):
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
