"""Start of a pool's recorder by its options, and warnings about recordings that crashes have left behind."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path

from ...log_fields import log_fields
from ..core.core import PoolCore
from .recorder import Recorder
from .storage import Folder, Memory, Place, crashed_in

__all__ = ["FLUSH_AFTER", "recorder_of"]

FLUSH_AFTER = 0.025
"""Seconds from an event until it is written. After a SIGKILL, the events of these last seconds are missing."""

_logger = logging.getLogger("greenroom")


def recorder_of(core: PoolCore, size_mb: float | None, folder: Path | None) -> Recorder | None:
    """Return the recorder of a core, on the running event loop. Return ``None`` if it is switched off.

    Without a folder, the recording ends with the process.
    """
    if not size_mb:
        return None
    place: Place = Memory()
    if folder is not None:
        place = _folder(folder) or place
    loop = asyncio.get_running_loop()
    return Recorder(core, place, int(size_mb * 2**20), loop.call_soon, partial(loop.call_later, FLUSH_AFTER))


def _folder(parent: Path) -> Folder | None:
    for one in crashed_in(parent):
        if one.is_found_now:
            text = "supervisor %d did not end normally. Read its recording: greenroom debug record --from %s"
            extra = log_fields("crash_recording", path=str(one.path), crashed_pid=one.pid)
            _logger.warning(text, one.pid, one.path, extra=extra)
    try:
        return Folder(parent)
    except OSError as error:
        text = "%s cannot be used for a flight recording: %s. After a crash of this process, no recording will be there"
        _logger.warning(text, parent, error, extra=log_fields("no_crash_recording", cause=str(error)))
        return None
