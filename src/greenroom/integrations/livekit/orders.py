"""A LiveKit job on its way to the process that runs it. Known to both sides; standard library only."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ...wire import plain_json

__all__ = ["ENDED_BY_SERVER", "RESTARTS_ATTRIBUTE", "Acceptance", "Order"]

RESTARTS_ATTRIBUTE = "greenroom.restarts"
"""The attribute of a job that is run again: how many times it was started before. Absent the first time."""

ENDED_BY_SERVER = "the LiveKit server ended the job"
"""The reason of an order to end: its dispatch was deleted, or its agent is not in the room any more."""

_VERSION = 1
_PREFIX = struct.Struct(">BI")  # version, length of the header; the job follows the header


@dataclass(frozen=True, slots=True)
class Acceptance:
    """As whom the agent joins the room."""

    name: str = ""
    identity: str = ""
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Mapping[str, Any] | None, job_id: str) -> Acceptance:
        """From what the request hook answered, if there was one. LiveKit's default identity is filled in."""
        values = {name: value for name, value in (answer or {}).items() if value is not None}
        identity = values.pop("identity", "") or f"agent-{job_id}"
        return cls(identity=identity, **values)

    def answer(self) -> dict[str, Any]:
        """As plain data; the inverse of :meth:`of`."""
        return {**asdict(self), "attributes": dict(self.attributes)}


@dataclass(frozen=True, slots=True)
class Order:
    """One LiveKit job. When it is offered there is no ``token`` yet, and no ``accept``."""

    job: bytes
    """The ``livekit_agent.Job``, serialized."""
    url: str = ""
    token: str = ""
    worker_id: str = ""
    accept: Acceptance = field(default_factory=Acceptance)
    restarts: int = 0
    """How many times this job was started before."""
    fake_job: bool = False
    """Without a server: the room is LiveKit's own imitation of one."""
    received_at: float = 0.0
    """Unix seconds, as the three below: when the offer came, was accepted, assigned, and launched."""
    accepted_at: float = 0.0
    assigned_at: float = 0.0
    launched_at: float = 0.0

    def encode(self) -> bytes:
        values = {name: getattr(self, name) for name in _PLAIN} | {"accept": self.accept.answer()}
        header = plain_json.encoded(values).encode("ascii")
        return _PREFIX.pack(_VERSION, len(header)) + header + self.job

    @classmethod
    def decode(cls, data: object) -> Order:
        """The inverse of :meth:`encode`. Raises ``ValueError`` for what is no order."""
        if not isinstance(data, bytes) or len(data) < _PREFIX.size:
            raise ValueError(f"not the order of a LiveKit job: {str(data)[:80]!r}")
        version, size = _PREFIX.unpack_from(data)
        if version != _VERSION:
            raise ValueError(f"an order of version {version}; this Greenroom knows version {_VERSION}")
        header, job = data[_PREFIX.size : _PREFIX.size + size], data[_PREFIX.size + size :]
        try:
            values = plain_json.decoded(header)
            return cls(job=job, accept=Acceptance(**values.pop("accept")), **values)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"a damaged order of a LiveKit job: {error}") from None


_PLAIN = tuple(entry.name for entry in fields(Order) if entry.name not in ("job", "accept"))
