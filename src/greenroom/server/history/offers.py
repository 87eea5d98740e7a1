"""Metadata of offers: until each becomes a job, and afterwards of the latest that were rejected."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from .shown_metadata import shown_metadata

__all__ = ["Offers"]

MOST = 5000
"""Offers without an answer that are kept. Each becomes a job, or is rejected, within seconds."""
REJECTED = 400
"""Rejected offers whose metadata is kept."""


class Offers:
    """Offers by job id, with the part of their metadata that operators may see: see :func:`.shown_metadata`."""

    def __init__(self, wanted: tuple[str, ...]) -> None:
        self._wanted = wanted
        self._open: OrderedDict[str, tuple[float, Any]] = OrderedDict()
        self._rejected: OrderedDict[str, Any] = OrderedDict()

    def add(self, job_id: str, metadata: bytes | None) -> None:
        """Keep what operators may see of the metadata (JSON) of an offer that comes now."""
        self._open[job_id] = (time.time(), shown_metadata(metadata, self._wanted))
        if len(self._open) > MOST:
            self._open.popitem(last=False)

    def note(self, job_id: str, at: float) -> None:
        """Keep the time of an offer without metadata, unless it is known."""
        self._open.setdefault(job_id, (at, None))

    def take(self, job_id: str, at: float) -> tuple[float, Any]:
        """Remove an offer, and return its time and its metadata. ``at`` is the time if the offer is not known."""
        return self._open.pop(job_id, (at, None))

    def drop(self, job_id: str) -> None:
        """Forget an offer that came to nothing."""
        self._open.pop(job_id, None)

    def reject(self, job_id: str) -> None:
        """Note that an offer is rejected, and keep its metadata for a while."""
        _, metadata = self._open.pop(job_id, (0.0, None))
        self._rejected.pop(job_id, None)
        if metadata is not None:
            self._rejected[job_id] = metadata
            if len(self._rejected) > REJECTED:
                self._rejected.popitem(last=False)

    def rejected(self, job_id: str) -> Any:
        """Return the metadata of an offer that was rejected; ``None`` if it has none, or is no longer kept."""
        return self._rejected.get(job_id)
