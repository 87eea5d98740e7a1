"""Messages of LiveKit's worker protocol, from and to plain data. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf.message import DecodeError
from livekit.protocol import agent, models

from ....errors import GreenroomError
from ..job_order import Acceptance

__all__ = [
    "AGENT_NAME_ATTRIBUTE",
    "Assigned",
    "GoneAway",
    "JobStatus",
    "Offered",
    "ProtocolError",
    "Registered",
    "ServerMessage",
    "Terminated",
    "accepted",
    "job_status",
    "migrate",
    "parse",
    "register",
    "rejected",
    "worker_status",
]

JobStatus = Literal["running", "success", "failed"]

_JOB_STATUS = {"running": agent.JS_RUNNING, "success": agent.JS_SUCCESS, "failed": agent.JS_FAILED}
_JOB_TYPES = {"room": agent.JT_ROOM, "publisher": agent.JT_PUBLISHER, "participant": agent.JT_PARTICIPANT}
_LONGEST_ERROR = 4096
AGENT_NAME_ATTRIBUTE = "lk.agent.name"
"""Participant attribute by which ``wait_for_agent`` and front ends find an agent."""


class ProtocolError(GreenroomError):
    """Error of a peer that sent data outside of LiveKit's worker protocol."""


@dataclass(frozen=True, slots=True)
class Registered:
    """Answer to :func:`register`."""

    worker_id: str
    server_version: str
    response: bytes = b""
    """Serialized ``agent.RegisterWorkerResponse``, for the event of LiveKit's worker."""


@dataclass(frozen=True, slots=True)
class Offered:
    """Offer of a job: the server asks whether the worker takes the job."""

    job: agent.Job

    @property
    def job_id(self) -> str:
        return self.job.id


@dataclass(frozen=True, slots=True)
class Assigned:
    """Assignment of an offered job: the worker must start the job. An empty ``url`` stands for the worker's own."""

    job: agent.Job
    url: str
    token: str

    @property
    def job_id(self) -> str:
        return self.job.id


@dataclass(frozen=True, slots=True)
class Terminated:
    """Termination of a job, which the server does not want any more."""

    job_id: str


@dataclass(frozen=True, slots=True)
class GoneAway:
    """Request of the server that its workers connect again, to another server if possible."""

    reason: str


ServerMessage = Registered | Offered | Assigned | Terminated | GoneAway


def parse(data: bytes) -> ServerMessage | None:
    """Return a message of the server; ``None`` for an unknown kind, such as a newer one.

    Raises :class:`ProtocolError` for data that is no message.
    """
    try:
        message = agent.ServerMessage.FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"the server sent {len(data)} bytes that are no message: {error}") from error
    match message.WhichOneof("message"):
        case "register":
            response: bytes = message.register.SerializeToString()
            return Registered(message.register.worker_id, message.register.server_info.version, response)
        case "availability":
            return Offered(message.availability.job)
        case "assignment":
            return Assigned(message.assignment.job, message.assignment.url, message.assignment.token)
        case "termination":
            return Terminated(message.termination.job_id)
        case "go_away":
            return GoneAway(message.go_away.reason)
    return None


def register(kind: str, agent_name: str, version: str, permissions: Mapping[str, Any], deployment: str = "") -> bytes:
    """Encode a registration. ``kind`` is ``room``, ``publisher`` or ``participant``.

    ``permissions`` has the names of :class:`ParticipantPermission`. Raises ``ValueError`` or ``KeyError`` for a kind
    or permission that the protocol does not know.
    """
    request = agent.RegisterWorkerRequest(
        type=_JOB_TYPES[kind],
        agent_name=agent_name,
        version=version,
        allowed_permissions=models.ParticipantPermission(**{**permissions, "agent": True}),
    )
    if deployment:  # an older livekit-protocol has no such field
        request.deployment = deployment
    return _encoded(register=request)


def accepted(job_id: str, accept: Acceptance, agent_name: str) -> bytes:
    """Encode the acceptance of an offer. ``agent_name`` becomes a participant's attribute, as in LiveKit's worker.

    Raises ``TypeError`` for an acceptance that cannot be encoded.
    """
    answer = agent.AvailabilityResponse(
        job_id=job_id,
        available=True,
        participant_identity=accept.identity,
        participant_name=accept.name,
        participant_metadata=accept.metadata,
        participant_attributes={AGENT_NAME_ATTRIBUTE: agent_name, **accept.attributes},
    )
    return _encoded(availability=answer)


def rejected(job_id: str, *, final: bool = False) -> bytes:
    """Encode the rejection of an offer. With ``final``, the server asks no other worker."""
    return _encoded(availability=agent.AvailabilityResponse(job_id=job_id, available=False, terminate=final))


def worker_status(*, available: bool, load: float, job_count: int) -> bytes:
    status = agent.WS_AVAILABLE if available else agent.WS_FULL
    return _encoded(update_worker=agent.UpdateWorkerStatus(status=status, load=load, job_count=job_count))


def job_status(job_id: str, status: JobStatus, error: str = "") -> bytes:
    update = agent.UpdateJobStatus(job_id=job_id, status=_JOB_STATUS[status], error=error[:_LONGEST_ERROR])
    return _encoded(update_job=update)


def migrate(job_ids: Iterable[str]) -> bytes:
    """Encode the message that these jobs go on after the loss of a connection."""
    return _encoded(migrate_job=agent.MigrateJobRequest(job_ids=list(job_ids)))


def _encoded(**variant: Any) -> bytes:
    data: bytes = agent.WorkerMessage(**variant).SerializeToString()
    return data
