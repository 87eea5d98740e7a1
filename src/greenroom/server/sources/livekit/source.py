"""LiveKit as a source of sessions: the part that is there for every app, and wakes up for those that are LiveKit's."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ....errors import GreenroomError, PoolClosed
from ....log_fields import log_fields
from ....pool import ProcessPool
from ....pool.events import Event, ProcessWarmed, ZygoteStarted
from ....settings.livekit import LiveKitOptions
from ...admission import Admission
from .log_levels import show_levels_of

if TYPE_CHECKING:
    from .config import Registration
    from .office import Office

__all__ = ["LiveKitSource"]

_logger = logging.getLogger("greenroom.livekit")


class LiveKitSource:
    """Implements :class:`~greenroom.server.sources.Source`. Does nothing for an app whose manifest has no LiveKit."""

    name = "livekit"

    def __init__(self, pool: ProcessPool, options: LiveKitOptions) -> None:
        self._pool = pool
        self._options = options
        self._office: Office | None = None
        self._named: set[str] = set()
        pool.subscribe(self._on_event)

    def status(self) -> dict[str, Any]:
        """``state``: ``off``, ``connected``, ``degraded`` (some of several servers) or ``disconnected``."""
        return {"state": "off"} if self._office is None else self._office.status()

    def _on_event(self, event: Event) -> None:
        # A process that is spawned tells of the app when it is warm; a zygote, before there is a process.
        if isinstance(event, (ZygoteStarted, ProcessWarmed)):
            with suppress(PoolClosed):  # closed since
                manifest = self._pool.manifest.get("livekit") or {}
                show_levels_of(manifest)
                self._name_without_effect(manifest)

    def _name_without_effect(self, manifest: Mapping[str, Any]) -> None:
        """Warn of options that the app has set in vain; of each once, however often the app is loaded."""
        for complaint in manifest.get("without_effect") or ():
            if complaint not in self._named:
                self._named.add(complaint)
                _logger.warning("%s", complaint, extra=log_fields("without_effect"))

    async def open(self, admission: Admission) -> None:
        """Connect, if the app is a LiveKit agent. Raises :class:`GreenroomError` if it cannot be known where to."""
        if "livekit" not in self._pool.manifest:
            return
        try:
            from .config import registrations, time_for_session_end
            from .office import Office
        except ImportError as error:
            message = f"the app is a LiveKit agent, and LiveKit's protocol is not installed ({error.name})"
            raise GreenroomError(f"{message}: pip install 'greenroom[livekit]'") from error

        def wanted() -> list[Registration]:
            return registrations(self._options, self._pool.manifest.get("livekit") or {}, os.environ)

        manifest = self._pool.manifest["livekit"]
        complaint = time_for_session_end(manifest, self._pool.options.shutdown_timeout)
        if complaint is not None:
            # LiveKit's default is five minutes; who has chosen a time is more likely to count on it.
            is_chosen = "session_end_timeout" in (manifest.get("options") or {})
            _logger.log(logging.WARNING if is_chosen else logging.INFO, "%s", complaint)
        self._office = Office(self._pool, admission, self._options, wanted)
        self._office.open()

    def pause(self) -> None:
        """The servers are told that no more jobs are taken; the connections stay, for those that go on."""
        if self._office is not None:
            self._office.pause()

    async def close(self) -> None:
        if self._office is not None:
            await self._office.close()
