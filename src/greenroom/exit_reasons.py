"""Exit reasons: why a process ended, and what became of its job."""

from __future__ import annotations

from typing import Literal

__all__ = ["EXPECTED_ENDS", "Outcome", "Reason"]

Outcome = Literal["succeeded", "failed", "cancelled", "killed"]
Reason = Literal[
    "completed",
    "raised",
    "exited",
    "signaled",
    "cancelled",
    "memory_limit",
    "process_limit",
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
"""Reasons of ordinary ends, which need no attention."""
