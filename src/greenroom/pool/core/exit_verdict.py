"""Verdict on the end of a process, by all evidence. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import ErrorInfo
from ...exit_reasons import Outcome, Reason
from ...signal_names import ASK_TO_END, CRASHES, DUMP, SIGKILL, signal_name
from .frozen import plain

__all__ = ["Decision", "Evidence", "ExitStatus", "Verdict", "judge"]

_ENDED_REASON: dict[str, Reason] = {"completed": "completed", "raised": "raised", "exited": "exited"}
# Outcomes of decisions after which a process may exit by itself. All other decisions kill the process.
_POLITE: dict[Reason, Outcome] = {
    "cancelled": "cancelled",
    "drained": "cancelled",
    "idle_expired": "cancelled",
}


class ExitStatus(NamedTuple):
    """Exit status from the kernel. Both fields are ``None`` if the status could not be read."""

    exit_code: int | None
    signal: int | None


@plain
class Decision:
    """Decision of the supervisor to end a process."""

    reason: Reason
    detail: str
    spares_own_end: bool = False
    """True if a job that has begun to end by itself is left alone."""
    job_is_over: bool = False
    """True if the job and its callbacks were over, and only the exit of the process was late."""


@plain
class Evidence:
    """Evidence of the end of a process."""

    status: ExitStatus
    state_at_death: str
    decision: Decision | None = None
    signal_sent: bool = False
    """True if the supervisor had sent SIGKILL before the death."""
    ended: str | None = None
    """End of the entrypoint, such as ``raised``; ``None`` if the process did not report it."""
    end_was_asked: bool = False
    """True if the job was asked to end, and had not begun to end by itself before."""
    error: ErrorInfo | None = None
    oom_killed: bool = False
    dump_was_asked: bool = False
    """True if the process was sent the signal to write its stacks."""
    was_asked: bool = False
    """True if the process was asked to exit, or its job to end, before any signal."""


class Verdict(NamedTuple):
    outcome: Outcome
    reason: Reason
    detail: str


def judge(evidence: Evidence) -> Verdict:
    """Return the outcome, the reason and the detail of a process's end."""
    if evidence.decision is not None and _took_effect(evidence):
        return _decided(evidence, evidence.decision)
    if evidence.ended in _ENDED_REASON:
        return _ended_by_itself(evidence, evidence.ended)
    return _died(evidence)


def _took_effect(evidence: Evidence) -> bool:
    """Return true if the decision ended the process. The process may have ended by itself just before."""
    decision, status = evidence.decision, evidence.status
    assert decision is not None
    if evidence.state_at_death == "requested":
        # The process was never forked, or killed right after the fork. Any other status has another cause.
        return status.signal in (None, SIGKILL) and not status.exit_code
    if decision.reason in ("prewarm_failed", "shutdown_timeout"):
        return True
    if status.signal is not None:
        if status.signal == DUMP and evidence.dump_was_asked:
            return True  # the process had reset its handlers, so the signal to write stacks ended it before SIGKILL
        if _crashed_in_dump(evidence):
            return True
        # Any other signal is a crash or came from outside, even if the process had been asked to end.
        return status.signal == SIGKILL and (evidence.signal_sent or evidence.end_was_asked)
    # The process exited. A job that ended before the request to end has ended by itself. The same is true of a
    # process that was sent SIGKILL but no request to end.
    if evidence.ended is not None:
        return evidence.end_was_asked
    if status.exit_code is None:
        return True  # there was no process, or its exit status could not be read
    return evidence.was_asked or not evidence.signal_sent


def _crashed_in_dump(evidence: Evidence) -> bool:
    """Return true if a process crashed after the signal to write its stacks and before SIGKILL.

    The dump reads the frames of threads while native threads run. This can crash the process.
    """
    decision = evidence.decision
    is_killed = decision is not None and decision.reason not in _POLITE
    return is_killed and evidence.dump_was_asked and evidence.status.signal in CRASHES


def _decided(evidence: Evidence, decision: Decision) -> Verdict:
    if decision.reason == "prewarm_failed":
        return Verdict("failed", decision.reason, decision.detail)
    if decision.job_is_over and evidence.ended in _ENDED_REASON:
        detail = f"{_detail_of_end(evidence, evidence.ended)}; then {decision.detail}"
        return Verdict(_outcome_of_end(evidence, evidence.ended), decision.reason, detail)
    outcome: Outcome = "killed"
    detail = decision.detail
    if decision.reason in _POLITE:
        if evidence.signal_sent and evidence.status.signal and evidence.state_at_death in ("running", "draining"):
            detail += "; it had not ended by itself, and was killed"
        else:
            outcome = _POLITE[decision.reason]
    if _crashed_in_dump(evidence):
        assert evidence.status.signal is not None
        detail += f"; it ended by {signal_name(evidence.status.signal)} while its stacks were written"
    return Verdict(outcome, decision.reason, detail)


def _ended_by_itself(evidence: Evidence, how: str) -> Verdict:
    outcome = _outcome_of_end(evidence, how)
    if evidence.status.signal is not None:
        name = signal_name(evidence.status.signal)
        detail = f"the job had {how}; the process was then ended by {name} in its clean-up"
        return Verdict(outcome, "oom_killed" if evidence.oom_killed else "signaled", detail)
    return Verdict(outcome, _ENDED_REASON[how], _detail_of_end(evidence, how))


def _outcome_of_end(evidence: Evidence, how: str) -> Outcome:
    return "succeeded" if how == "completed" or (how == "exited" and evidence.status.exit_code == 0) else "failed"


def _detail_of_end(evidence: Evidence, how: str) -> str:
    if how == "completed":
        return "the entrypoint returned"
    if how == "raised":
        return f"the entrypoint raised {evidence.error}"
    # The process may have been killed during its exit. Then the code is unknown.
    code = evidence.status.exit_code
    return "the job exited" + ("" if code is None else f" with code {code}")


def _died(evidence: Evidence) -> Verdict:
    status, doing = evidence.status, evidence.state_at_death
    if evidence.oom_killed:
        return Verdict("killed", "oom_killed", f"the kernel killed it while it was {doing}, because memory ran out")
    if status.signal is not None:
        name = signal_name(status.signal)
        sender = "from itself or from outside" if status.signal in ASK_TO_END else "from outside, or a crash"
        sent = f"{name} {sender}"
        return Verdict("killed", "signaled", f"{sent}, while it was {doing}")
    if status.exit_code is not None and evidence.error is not None and doing in ("forked", "warming"):
        # The process was not wanted any more. It reported the failure of prewarm before SIGKILL came.
        return Verdict("failed", "prewarm_failed", f"prewarm raised {evidence.error}")
    if status.exit_code is not None:
        return Verdict("failed", "exited", f"it exited with code {status.exit_code} while it was {doing}")
    return Verdict("failed", "exited", f"it exited while it was {doing}; another process has read its exit status")
