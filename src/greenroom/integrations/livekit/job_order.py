"""LiveKit job as the supervisor sends it to the process that runs it. Both import this module.

Standard library only.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ...wire import plain_json

__all__ = [
    "ENDED_BY_SERVER",
    "JOB",
    "LOAD",
    "RESTARTS_ATTRIBUTE",
    "STARTED",
    "WORKER",
    "Acceptance",
    "Order",
    "labels_of",
]

RESTARTS_ATTRIBUTE = "greenroom.restarts"
"""Job attribute with the number of earlier starts of the job. Absent at the first start."""

ENDED_BY_SERVER = "the LiveKit server ended the job"
"""Reason of a cancel after the job's dispatch was deleted, or its agent is not in the room any more."""

LOAD = "load"
"""Topic of the question to the app's ``load_fnc``."""
JOB = "job"
"""Topic of news about jobs. The key is a job's id, and the value is the encoded :class:`Order` of a launched job."""
WORKER = "worker"
"""Topic of news about the worker. The key is a registration, and the value is the server's answer to it."""
STARTED = "started"
"""Key of the news that the worker has started."""

_VERSION = 1
_PREFIX = struct.Struct(">BI")  # version, length of the header; the job follows the header


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Name, identity, metadata and attributes with which the agent joins the room."""

    name: str = ""
    identity: str = ""
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Mapping[str, Any] | None, job_id: str) -> Acceptance:
        """Make an acceptance from the request hook's answer, if there is one. The default identity is LiveKit's."""
        values = {name: value for name, value in (answer or {}).items() if value is not None}
        identity = values.pop("identity", "") or f"agent-{job_id}"
        return cls(identity=identity, **values)

    def answer(self) -> dict[str, Any]:
        """Return the acceptance as plain data, for :meth:`of`."""
        return {**asdict(self), "attributes": dict(self.attributes)}


@dataclass(frozen=True, slots=True)
class Order:
    """One LiveKit job, with the data of its start. An offered job has no ``token`` and no ``accept`` yet."""

    job: bytes
    """Serialized ``livekit_agent.Job``."""
    url: str = ""
    token: str = ""
    worker_id: str = ""
    accept: Acceptance = field(default_factory=Acceptance)
    restarts: int = 0
    """Number of earlier starts of this job."""
    fake_job: bool = False
    """True for a job without a server, in LiveKit's imitation of a room."""
    received_at: float = 0.0
    """Unix time of the offer, in seconds. The next three are the times of acceptance, assignment and launch."""
    accepted_at: float = 0.0
    assigned_at: float = 0.0
    launched_at: float = 0.0

    def encode(self) -> bytes:
        values = {name: getattr(self, name) for name in _PLAIN} | {"accept": self.accept.answer()}
        header = plain_json.encoded(values).encode("ascii")
        return _PREFIX.pack(_VERSION, len(header)) + header + self.job

    @classmethod
    def decode(cls, data: object) -> Order:
        """Decode the bytes of :meth:`encode`. Raises ``ValueError`` for any other data."""
        if not isinstance(data, bytes) or len(data) < _PREFIX.size:
            raise ValueError(f"not the description of a LiveKit job: {str(data)[:80]!r}")
        version, size = _PREFIX.unpack_from(data)
        if version != _VERSION:
            raise ValueError(
                f"the description of a LiveKit job has version {version}; this Greenroom reads version {_VERSION}"
            )
        header, job = data[_PREFIX.size : _PREFIX.size + size], data[_PREFIX.size + size :]
        try:
            values = plain_json.decoded(header)
            return cls(job=job, accept=Acceptance(**values.pop("accept")), **values)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"the description of a LiveKit job is damaged: {error}") from None


_PLAIN = tuple(entry.name for entry in fields(Order) if entry.name not in ("job", "accept"))


def labels_of(job: Any) -> dict[str, str]:
    """Return the labels of a ``livekit_agent.Job``. The room is first, since people know a job by its room."""
    labels = {"room": job.room.name, "room_id": job.room.sid, "dispatch": job.dispatch_id, "agent": job.agent_name}
    return {name: text for name, text in labels.items() if text}
