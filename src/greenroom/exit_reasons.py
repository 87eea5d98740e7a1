"""Exit reasons: why a process ended, and what became of its job."""

from __future__ import annotations

from typing import Literal

__all__ = ["EXPECTED_ENDS", "POSSIBLE_ENDS", "Outcome", "Reason", "is_expected"]

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


def is_expected(outcome: Outcome, reason: Reason, *, had_job: bool) -> bool:
    """Return true for an ordinary end, which needs no attention.

    A job that had to be killed needs attention, even after a hang-up. So does a job that was cut by a drain.
    """
    is_cut = reason == "drained" and had_job
    return reason in EXPECTED_ENDS and outcome not in ("failed", "killed") and not is_cut


POSSIBLE_ENDS: dict[Reason, tuple[frozenset[Outcome], frozenset[Outcome]]] = {
    "completed": (frozenset({"succeeded"}), frozenset()),
    "raised": (frozenset({"failed"}), frozenset()),
    "exited": (frozenset({"succeeded", "failed"}), frozenset({"failed"})),
    "signaled": (frozenset({"succeeded", "failed", "killed"}), frozenset({"killed"})),
    "cancelled": (frozenset({"cancelled", "killed"}), frozenset()),
    "memory_limit": (frozenset({"killed"}), frozenset({"killed"})),
    "process_limit": (frozenset({"killed"}), frozenset({"killed"})),
    "oom_killed": (frozenset({"succeeded", "failed", "killed"}), frozenset({"killed"})),
    "stalled": (frozenset({"killed"}), frozenset({"killed"})),
    "job_timeout": (frozenset({"killed"}), frozenset()),
    "shutdown_timeout": (frozenset({"succeeded", "failed", "killed"}), frozenset({"killed"})),
    "request_timeout": (frozenset(), frozenset({"killed"})),
    "start_timeout": (frozenset({"killed"}), frozenset()),
    "prewarm_failed": (frozenset(), frozenset({"failed"})),
    "prewarm_timeout": (frozenset(), frozenset({"killed"})),
    "idle_expired": (frozenset(), frozenset({"cancelled"})),
    "drained": (frozenset({"cancelled", "killed"}), frozenset({"cancelled"})),
    "protocol_error": (frozenset({"killed"}), frozenset({"killed"})),
}
"""Outcomes of processes that end for each reason: with a job, and without one. The metrics count each from 0 on."""
