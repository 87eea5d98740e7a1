"""Orders for jobs that need no server, and the notes that an agent has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from livekit.protocol import agent, models

from greenroom.integrations.livekit.job_order import Order

__all__ = ["notes_of", "order"]


def order(metadata: str = "", **values: Any) -> bytes:
    """An order for a job in LiveKit's imitation of a room, as a worker would send it to a process."""
    room = models.Room(name="reception", sid="RM_1")
    job = agent.Job(id="AJ_1", dispatch_id="AD_1", room=room, metadata=metadata, agent_name="greeter")
    return Order(job=job.SerializeToString(), **({"fake_job": True} | values)).encode()


def notes_of(app: Path) -> list[str]:
    path = app.with_suffix(".notes")
    return path.read_text().splitlines() if path.exists() else []
