"""Conversions of LiveKit's ``RunningJobInfo``: from an :class:`Order`, and to and from plain data."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

from livekit.agents.job import JobAcceptArguments, RunningJobInfo
from livekit.protocol import agent

from ..job_order import RESTARTS_ATTRIBUTE, Order
from .blueprint import fill

__all__ = ["from_order", "from_plain", "to_plain"]

_SAME = ("url", "token", "worker_id", "fake_job", "received_at", "accepted_at", "assigned_at", "launched_at")


def from_order(order: Order) -> RunningJobInfo:
    """Convert an order. Raises :class:`AppLoadError` if this release needs a value that an order does not have."""
    job = agent.Job.FromString(order.job)
    if order.restarts:
        job.attributes[RESTARTS_ATTRIBUTE] = str(order.restarts)
    accept = JobAcceptArguments(**fill(JobAcceptArguments, order.accept.answer()))
    values = {name: getattr(order, name) for name in _SAME} | {"job": job, "accept_arguments": accept}
    return RunningJobInfo(**fill(RunningJobInfo, values))


def to_plain(info: RunningJobInfo) -> dict[str, Any]:
    """Return every field that this release has. The job itself is its protobuf, in base64."""
    fields = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    fields["job"] = base64.b64encode(info.job.SerializeToString()).decode()
    fields["accept_arguments"] = dataclasses.asdict(info.accept_arguments)
    return fields


def from_plain(data: dict[str, Any]) -> RunningJobInfo:
    job = agent.Job.FromString(base64.b64decode(data["job"]))
    return RunningJobInfo(**{**data, "job": job, "accept_arguments": JobAcceptArguments(**data["accept_arguments"])})
