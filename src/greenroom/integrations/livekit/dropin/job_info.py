"""LiveKit's ``RunningJobInfo`` as plain data, there and back."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

from livekit.agents.job import JobAcceptArguments, RunningJobInfo
from livekit.protocol import agent

__all__ = ["from_plain", "to_plain"]


def to_plain(info: RunningJobInfo) -> dict[str, Any]:
    """Every field, whatever this release has; the job itself as the bytes of its protobuf."""
    fields = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    fields["job"] = base64.b64encode(info.job.SerializeToString()).decode()
    fields["accept_arguments"] = dataclasses.asdict(info.accept_arguments)
    return fields


def from_plain(data: dict[str, Any]) -> RunningJobInfo:
    job = agent.Job.FromString(base64.b64decode(data["job"]))
    return RunningJobInfo(**{**data, "job": job, "accept_arguments": JobAcceptArguments(**data["accept_arguments"])})
