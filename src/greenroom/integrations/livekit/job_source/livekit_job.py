"""State of one LiveKit job in the source."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from livekit.protocol import agent

from ....job_labels import tidy_labels
from ....sources import Acceptance, JobHandle
from .. import job_order as orders
from ..job_order import Order, labels_of
from .livekit_connection import Connection

__all__ = ["LiveKitJob", "order_of"]

LONGEST_SHOWN = 16_384
"""Characters of a dispatch's metadata that operators may see. Longer JSON is shown as text."""


@dataclass(eq=False)
class LiveKitJob:
    """One LiveKit job, from its offer to its end."""

    connection: Connection
    job: agent.Job
    order: Order
    acceptance: Acceptance | None = None
    answer: bytes = b""
    kept_until: float = 0.0
    """End of the reservation without a start, on the event loop's clock."""
    expiry: asyncio.TimerHandle | None = None
    considering: asyncio.Task[None] | None = None
    following: asyncio.Task[None] | None = None
    lane: asyncio.Task[None] | None = None
    """Task that frees the lane of the job when its agent has started up."""
    handle: JobHandle | None = None
    terminated: bool = False
    """True if the server does not want the job any more."""
    stalls_before: int = 0
    """Number of the worker's stalls that were over before the offer came: see :attr:`Offer.stalls_before`."""
    is_reserved: bool = False
    """True if the app's load leaves room for the job. The job counts as reserved until its launch."""

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def labels(self) -> dict[str, str]:
        return tidy_labels(labels_of(self.job))

    @property
    def shown(self) -> bytes:
        """Metadata of the dispatch, as JSON: as it is if it is JSON, else as a text. The order has tokens in it."""
        text = self.job.metadata[:LONGEST_SHOWN]
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return json.dumps(text or None).encode()
        return text.encode()

    @property
    def ids(self) -> dict[str, Any]:
        """Fields of all log lines about this job."""
        return {"job_id": self.id, "labels": self.labels}

    @property
    def is_running(self) -> bool:
        return self.handle is not None and self.handle.report is None and self.handle.start_seconds is not None


def order_of(job: agent.Job) -> Order:
    """Return the order of an offered job. If its room was dispatched anew, an attribute has the number of restarts."""
    text = job.attributes.get(orders.RESTARTS_ATTRIBUTE, "")
    restarts = int(text) if text.isascii() and text.isdigit() else 0
    return Order(job.SerializeToString(), restarts=restarts, received_at=time.time())
