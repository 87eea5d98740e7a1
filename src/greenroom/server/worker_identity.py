"""Name of a worker, and number of its start. Ids of jobs carry both, so that a proxy finds the worker of a job."""

from __future__ import annotations

import re
import secrets
import socket
from typing import Literal

__all__ = ["WorkerIdentity", "has_own_form", "name_of_host", "worker_of"]

LONGEST_NAME = 32
_FORM = re.compile(rf"([a-z0-9-]{{1,{LONGEST_NAME}}})\.([0-9a-f]{{8}})\.[0-9a-f]{{12}}")

Origin = Literal["this", "earlier", "other"]


def name_of_host() -> str:
    """Return the first label of the host name, in the form of a worker's name."""
    label = socket.gethostname().partition(".")[0].lower()
    return re.sub(r"[^a-z0-9-]", "-", label)[:LONGEST_NAME] or "worker"


def has_own_form(job_id: str) -> bool:
    """Return whether a job id looks as if a worker had made it."""
    return _FORM.fullmatch(job_id) is not None


class WorkerIdentity:
    """Name of a worker, and a random number of this start. Job ids have the form ``NAME.START.RANDOM``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._start = secrets.token_hex(4)

    def new_job_id(self) -> str:
        """Return an id that no other start of any worker makes."""
        return f"{self.name}.{self._start}.{secrets.token_hex(6)}"

    def origin_of(self, job_id: str) -> Origin | None:
        """Return whether this start of this worker made a job id, an earlier start of it, or another worker.

        Return ``None`` for an id that no worker has made.
        """
        match = _FORM.fullmatch(job_id)
        if match is None:
            return None
        if match[1] != self.name:
            return "other"
        return "this" if match[2] == self._start else "earlier"


def worker_of(job_id: str) -> str:
    """Return the name of the worker that made a job id. The id has the form of :meth:`WorkerIdentity.new_job_id`."""
    return job_id.partition(".")[0]
