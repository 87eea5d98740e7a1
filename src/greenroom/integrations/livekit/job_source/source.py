"""LiveKit as a source of sessions. Every worker has this source, which is active for a LiveKit agent alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ....errors import GreenroomError
from ....log_fields import log_fields
from ....sources import Host, Listener
from ..options import LiveKitOptions

if TYPE_CHECKING:
    from .livekit_worker import LiveKitWorker
    from .registrations import Registration

__all__ = ["LiveKitSource", "show_levels_of"]

_logger = logging.getLogger("greenroom.livekit")


class LiveKitSource(Listener):
    """Implementation of :class:`greenroom.sources.Source`. Does nothing for an app whose manifest has no LiveKit."""

    name = "livekit"

    def __init__(self, options: LiveKitOptions) -> None:
        self._host: Host | None = None
        self._options = options
        self._worker: LiveKitWorker | None = None
        self._named: set[str] = set()

    def status(self) -> dict[str, Any]:
        """Return the status. ``state`` is ``off``, ``connected``, ``degraded`` or ``disconnected``.

        ``degraded`` means that some of several registrations are missing.
        """
        return {"state": "off"} if self._worker is None else self._worker.status()

    def attach(self, host: Host) -> None:
        self._host = host
        host.listen(self)

    def app_loaded(self) -> None:
        manifest = self._manifest() or {}
        show_levels_of(manifest)
        self._name_without_effect(manifest)

    def _manifest(self) -> Mapping[str, Any] | None:
        """Return the manifest of a LiveKit app; ``None`` for any other app."""
        return self._host.manifest.get("livekit") if self._host is not None else None

    def _name_without_effect(self, manifest: Mapping[str, Any]) -> None:
        """Log a warning for each option without effect that the app has set, once in the worker's life."""
        for complaint in manifest.get("without_effect") or ():
            if complaint not in self._named:
                self._named.add(complaint)
                _logger.warning("%s", complaint, extra=log_fields("without_effect"))

    async def open(self) -> None:
        """Connect, if the app is a LiveKit agent.

        Raises :class:`GreenroomError` if the configuration is incomplete, or LiveKit's protocol is not installed.
        """
        host, manifest = self._host, self._manifest()
        if host is None or manifest is None:
            return
        try:
            # imported late: LiveKit's protocol is a package of an extra
            from .livekit_worker import LiveKitWorker
            from .registrations import registrations, time_for_session_end
        except ImportError as error:
            message = f"the app is a LiveKit agent, and LiveKit's protocol is not installed ({error.name})"
            raise GreenroomError(f"{message}: pip install 'greenroom[livekit]'") from error

        def wanted() -> list[Registration]:
            return registrations(self._options, self._manifest() or {}, os.environ)

        complaint = time_for_session_end(manifest, host.options.shutdown_timeout)
        if complaint is not None:
            # LiveKit's default is five minutes. An author who has chosen a time is more likely to rely on it.
            is_chosen = "session_end_timeout" in (manifest.get("options") or {})
            level = logging.WARNING if is_chosen else logging.INFO
            _logger.log(level, "%s", complaint, extra=log_fields("session_end_timeout"))
        self._worker = LiveKitWorker(host, self._options, wanted)
        await self._worker.open()

    def pause(self) -> None:
        """Report to the servers that the worker takes no more jobs. The connections stay for the jobs that go on."""
        if self._worker is not None:
            self._worker.pause()

    async def close(self) -> None:
        if self._worker is not None:
            await self._worker.close()


_app_logger = logging.getLogger("greenroom.app")

_NAMES = {5: "TRACE", 23: "DEV"}
"""Names of LiveKit's levels between the levels of Python."""


def show_levels_of(manifest: Mapping[str, Any]) -> None:
    """Log the app's records from the level that a manifest names. ``None`` leaves the decision to ``log_level``."""
    for number, name in _NAMES.items():
        logging.addLevelName(number, name)
    level = manifest.get("log_level")
    _app_logger.setLevel(logging.NOTSET if level is None else level)
