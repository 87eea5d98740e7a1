"""Reports of the ends of processes and jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import ErrorInfo
from .exit_reasons import Outcome, Reason
from .wire import payload

__all__ = ["ExitReport", "Timings"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Times in the life of a process or job; ``None`` for a step that never happened.

    The pool measures the differences on the monotonic clock. A jump of the wall clock does not change them.
    """

    requested: float
    """Time of the launch, or of the request for the process if it had no job."""
    claimed: float | None = None
    """Time at which a process was given the job."""
    started: float | None = None
    """Time at which the process acknowledged the job."""
    ended: float | None = None
    """Time of the end."""


@dataclass(frozen=True, slots=True)
class ExitReport:
    """Report of the end of one process, and of the job that the process had.

    ``outcome`` and ``reason`` can differ on purpose. A job can succeed, and its process can crash afterwards in an
    exit hook of a library.
    """

    outcome: Outcome
    """Result of the job: ``succeeded``, ``failed``, ``cancelled`` or ``killed``."""
    reason: Reason
    """Cause of the end of the process: one of the exit reasons."""
    detail: str
    """Sentence that names the cause and the party that decided."""
    timings: Timings
    """Times of the launch, the claim, the start and the end."""
    job_id: str | None = None
    """Id of the job; ``None`` if the process had none."""
    process_id: str | None = None
    """Id of the process, unique in the pool; ``None`` if the job never had a process."""
    pid: int | None = None
    """Process id of the operating system."""
    generation: int | None = None
    """Number of the generation of code."""
    launch_type: Literal["warm", "cold"] | None = None
    """``warm`` if an idle process was there at once, else ``cold``; ``None`` without a job."""
    exit_code: int | None = None
    """Exit code of the process; ``None`` if a signal ended it."""
    signal: int | None = None
    """Number of the signal that ended the process; ``None`` if the process exited."""
    error: ErrorInfo | None = None
    """Exception that the entrypoint or ``prewarm`` raised, if any."""
    stack_dump: str | None = None
    """Python stacks of the process, taken just before the kill, or as its native code crashed."""
    peak_memory_mb: float | None = None
    """Largest resident size (RSS) by the kernel's account. Pages that are shared with the zygote count."""
    cpu_seconds: float | None = None
    """CPU time of the process, user and system."""
    log_records_dropped: int = 0
    """Number of log records and output lines that were dropped or cut."""
    descendants_killed: int = 0
    """Number of processes that the job left behind, and that were killed after its end."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Names that the source has for the job. A LiveKit job has ``room``, ``room_id``, ``dispatch`` and ``agent``."""
    result_payload: bytes | None = field(default=None, repr=False)
    """Result of the job as encoded bytes. :attr:`result` decodes them."""

    @property
    def result(self) -> Any:
        """Return value of the entrypoint; ``None`` if it did not return. Each access decodes the result."""
        return None if self.result_payload is None else payload.decode(self.result_payload)

    @property
    def result_json(self) -> bytes | None:
        """Result of the job as JSON text; ``None`` if there is no result, or if the result is bytes."""
        return None if self.result_payload is None else payload.as_json(self.result_payload)
