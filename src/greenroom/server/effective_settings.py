"""Settings in force: those of the operator, and those that the serving app sets besides."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..app_facts import AppSettings
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
    """Settings in force. From :meth:`apply` on, they follow the app, because a reload may bring other settings.

    ``on_change`` gets the settings, and true if the app has reported its settings for the first time. With ``spawn``,
    the app reports them when its first process is warm, which may be long after :meth:`apply`.
    """

    def __init__(self, resolved: Resolved, pool: ProcessPool, on_change: Callable[[Settings, bool], object]) -> None:
        self._resolved = resolved
        self._pool = pool
        self._on_change = on_change
        self._applied: AppSettings | None = None

    def apply(self) -> Settings:
        """Return the settings that hold with the loaded app, and follow the app from now on.

        Raises :class:`OptionError` if the app sets a wrong value. The error names the setting in the app's words.
        """
        self._pool.subscribe(self._on_event)
        self._applied = self._app_settings()
        return self._settle()

    def _on_event(self, event: Event) -> None:
        # A zygote reports the app before it forks. With spawn, a process reports the app when it is warm.
        if not isinstance(event, (ZygoteStarted, ProcessWarmed)) or not self._pool.is_open:
            return
        latest = self._app_settings()
        if latest is None or latest == self._applied:
            return
        is_first, self._applied = self._applied is None, latest
        try:
            settings = self._settle()
        except OptionError as error:
            extra = log_fields("app_settings_rejected", cause=str(error))
            _logger.error("%s. The settings before stay in force", error, extra=extra)
        else:
            self._on_change(settings, is_first)

    def _app_settings(self) -> AppSettings | None:
        facts = self._pool.app_facts
        return facts.own_settings if facts is not None else None

    def _settle(self) -> Settings:
        app_settings = self._applied or {}
        resolved = self._resolved.with_app(app_settings)
        for name, text in _sentences(resolved, app_settings):
            _logger.info("%s", text, extra=log_fields("app_setting", setting=name))
        return resolved.settings


def _sentences(resolved: Resolved, app_settings: AppSettings) -> list[tuple[str, str]]:
    """Return each setting that the app sets, with a sentence. The app's value holds, or another origin overrides it."""
    found = []
    for name, one in app_settings.items():
        setting, origin = all_settings()[name], resolved.origins[name]
        if origin.kind == "app":
            found.append((name, f"setting from the app: {one.origin}"))
        else:
            value = as_text(setting, setting.of(resolved.settings))
            found.append((name, f"setting from the app not used: {one.origin}; {name} is {value} by {origin}"))
    return found
