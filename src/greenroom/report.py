"""The end of a process, told truthfully: what happened, why, and who decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import ErrorInfo
from .wire import payload

__all__ = ["EXPECTED_ENDS", "ExitReport", "Outcome", "Reason", "Timings"]

Outcome = Literal["succeeded", "failed", "cancelled", "killed"]
Reason = Literal[
    "completed",
    "raised",
    "exited",
    "signaled",
    "cancelled",
    "memory_limit",
    "oom_killed",
    "stalled",
    "job_timeout",
    "shutdown_timeout",
    "request_timeout",
    "start_timeout",
    "prewarm_failed",
    "prewarm_timeout",
    "idle_expired",
    "drained",
    "protocol_error",
]

EXPECTED_ENDS: frozenset[Reason] = frozenset({"completed", "idle_expired", "drained", "cancelled"})
"""Why a process ends that nobody needs to look into."""


@dataclass(frozen=True, slots=True)
class Timings:
    """When things happened, in seconds since the epoch; ``None`` for what never happened.

    The differences are measured on the monotonic clock, so a jump of the wall clock does not show.
    """

    requested: float
    claimed: float | None = None
    started: float | None = None
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class ExitReport:
    """The one report in which a process, and the job it had, ends.

    ``outcome`` says how the job fared; ``reason`` says what ended the process; ``detail`` tells it
    in a sentence, with who decided. A process that ended before it had a job has no ``job_id``.
    """

    outcome: Outcome
    reason: Reason
    detail: str
    timings: Timings
    job_id: str | None = None
    process_id: str | None = None
    pid: int | None = None
    generation: int | None = None
    launch_type: Literal["warm", "cold"] | None = None
    exit_code: int | None = None
    """The exit code, if the process exited; ``None`` if a signal ended it."""
    signal: int | None = None
    """The number of the signal that ended the process, if one did."""
    error: ErrorInfo | None = None
    stack_dump: str | None = None
    """The Python stacks of the process, taken just before it was killed."""
    peak_memory_mb: float | None = None
    """The largest resident size (MiB) by the kernel's account; pages shared with the zygote count."""
    cpu_seconds: float | None = None
    log_records_dropped: int = 0
    """Output lines and log records that were dropped, since the job wrote more than the log takes, or were cut."""
    descendants_killed: int = 0
    """Processes that the job left behind, and that were killed after its end."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What the job's source calls it: of a LiveKit job ``room``, ``room_id``, ``dispatch`` and ``agent``."""
    result_payload: bytes | None = field(default=None, repr=False)
    """The job's result as it came over the wire; :attr:`result` is the same, decoded."""

    @property
    def result(self) -> Any:
        """What the entrypoint returned; ``None`` if it did not return. Decoded at each access."""
        return None if self.result_payload is None else payload.decode(self.result_payload)

    @property
    def result_json(self) -> bytes | None:
        """The result as JSON text, without decoding it; ``None`` if there is none or it is bytes."""
        return None if self.result_payload is None else payload.as_json(self.result_payload)
