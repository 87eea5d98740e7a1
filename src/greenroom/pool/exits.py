"""From what is known of a process's end to the one true account of it. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import ErrorInfo
from ..report import Outcome, Reason

__all__ = ["Decision", "Evidence", "ExitStatus", "Verdict", "judge"]

_ENDED_REASON: dict[str, Reason] = {"completed": "completed", "raised": "raised", "exited": "exited"}
# Decisions that are fulfilled when the process stops by itself; by the others it was killed anyway.
_POLITE: dict[Reason, Outcome] = {
    "cancelled": "cancelled",
    "drained": "cancelled",
    "idle_expired": "cancelled",
}
_ASKS_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class ExitStatus(NamedTuple):
    """As the kernel tells it; both ``None`` where nobody could read it."""

    exit_code: int | None
    signal: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Why the supervisor decided to end a process."""

    reason: Reason
    detail: str
    spares_own_end: bool = False
    """A job that has begun to end by itself is left to that."""
    job_is_over: bool = False
    """The job and its callbacks were over: only the exit of its process was held up."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of the end of a process."""

    status: ExitStatus
    state_at_death: str
    decision: Decision | None = None
    signal_sent: bool = False
    """The supervisor has sent SIGKILL, before the death."""
    ended: str | None = None
    """How the entrypoint ended, if the process could say so."""
    told: bool = False
    """It was told to end, and had not begun to end by itself before."""
    error: ErrorInfo | None = None
    oom_killed: bool = False


class Verdict(NamedTuple):
    outcome: Outcome
    reason: Reason
    detail: str


def judge(evidence: Evidence) -> Verdict:
    """What happened, why, and who decided."""
    if evidence.decision is not None and _took_effect(evidence):
        return _decided(evidence, evidence.decision)
    if evidence.ended in _ENDED_REASON:
        return _ended_by_itself(evidence, evidence.ended)
    return _died(evidence)


def _took_effect(evidence: Evidence) -> bool:
    """Whether the decision is what ended the process: it may have ended by itself just before."""
    decision, status = evidence.decision, evidence.status
    assert decision is not None
    if evidence.state_at_death == "requested":
        # Never forked, or killed as soon as it was; unless it was quicker, and died of something else.
        return status.signal in (None, signal.SIGKILL) and not status.exit_code
    if decision.reason in ("prewarm_failed", "shutdown_timeout"):
        return True
    if status.signal is not None:
        # Else it was a crash, or somebody else's signal, even if the process had been asked to end.
        return status.signal == signal.SIGKILL and (evidence.signal_sent or evidence.told)
    # It exited. A job that ended before it was told to has ended by itself, and so has a process for
    # which nothing but a SIGKILL was on its way.
    if evidence.ended is not None:
        return evidence.told
    if status.exit_code is None:
        return True  # there never was a process, or nobody could read how it ended
    return not evidence.signal_sent or _was_asked(decision.reason, evidence.state_at_death)


def _was_asked(reason: Reason, state: str) -> bool:
    """Whether the process was asked to end before it was sent a SIGKILL."""
    return state in ("idle", "running") and (reason in _POLITE or reason == "job_timeout")


def _decided(evidence: Evidence, decision: Decision) -> Verdict:
    if decision.reason == "prewarm_failed":
        return Verdict("failed", decision.reason, decision.detail)
    if decision.job_is_over and evidence.ended in _ENDED_REASON:
        told = f"{_told_of_end(evidence, evidence.ended)}; then {decision.detail}"
        return Verdict(_outcome_of_end(evidence, evidence.ended), decision.reason, told)
    outcome: Outcome = "killed"
    detail = decision.detail
    if decision.reason in _POLITE:
        if evidence.signal_sent and evidence.status.signal and evidence.state_at_death in ("running", "draining"):
            detail += "; it had not ended by itself, and was killed"
        else:
            outcome = _POLITE[decision.reason]
    return Verdict(outcome, decision.reason, detail)


def _ended_by_itself(evidence: Evidence, how: str) -> Verdict:
    outcome = _outcome_of_end(evidence, how)
    if evidence.status.signal is not None:
        name = _signal_name(evidence.status.signal)
        told = f"the job had {how}; the process was then ended by {name} in its clean-up"
        return Verdict(outcome, "oom_killed" if evidence.oom_killed else "signaled", told)
    return Verdict(outcome, _ENDED_REASON[how], _told_of_end(evidence, how))


def _outcome_of_end(evidence: Evidence, how: str) -> Outcome:
    return "succeeded" if how == "completed" or (how == "exited" and evidence.status.exit_code == 0) else "failed"


def _told_of_end(evidence: Evidence, how: str) -> str:
    code = evidence.status.exit_code
    details = {
        "completed": "the entrypoint returned",
        "raised": f"the entrypoint raised {evidence.error}",
        # Its process may have been killed on its way out: then nobody knows the code.
        "exited": "the job exited" + ("" if code is None else f" with code {code}"),
    }
    return details[how]


def _died(evidence: Evidence) -> Verdict:
    status, doing = evidence.status, evidence.state_at_death
    if evidence.oom_killed:
        return Verdict("killed", "oom_killed", f"the kernel killed it for want of memory while it was {doing}")
    if status.signal is not None:
        name = _signal_name(status.signal)
        sent = (
            f"{name}, of its own or from outside"
            if status.signal in _ASKS_TO_END
            else f"{name} from outside, or a crash"
        )
        return Verdict("killed", "signaled", f"{sent}, while it was {doing}")
    if status.exit_code is not None:
        return Verdict("failed", "exited", f"it exited with code {status.exit_code} while it was {doing}")
    return Verdict("failed", "exited", f"it ended while it was {doing}; its status was read by somebody else")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
