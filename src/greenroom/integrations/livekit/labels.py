"""What a LiveKit job is called in logs, events and reports. Known to both sides; standard library only."""

from __future__ import annotations

from typing import Any

__all__ = ["labels_of"]


def labels_of(job: Any) -> dict[str, str]:
    """The labels of a ``livekit_agent.Job``; the room comes first, by which people know it."""
    labels = {"room": job.room.name, "room_id": job.room.sid, "dispatch": job.dispatch_id, "agent": job.agent_name}
    return {name: text for name, text in labels.items() if text}
