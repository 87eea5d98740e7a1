"""The account: what each session was to be, what became of it, and what is wrong with that. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

ANY = "any"
ACCEPTED = "accepted"


@dataclass
class Session:
    """One start, and all that is known of it."""

    id: str
    kind: str
    """``live`` and ``short`` are honest; others carry the name of the attack that they belong to."""
    wants: str
    """The reason with which it must end; ``any``: some end."""
    nonce: str = ""
    answer: str = "no answer"
    """``accepted``, or why it was not."""
    seconds: float = 0.0
    """From the request to the answer."""
    at: float = 0.0
    """When its answer came, or else its report: in seconds since the epoch."""
    pid: int | None = None
    reason: str | None = None
    detail: str = ""
    result: Any = None
    result_dropped: bool = False

    @property
    def is_honest(self) -> bool:
        return self.kind in ("live", "short")


@dataclass
class Account:
    """What became of all sessions."""

    served: Counter[str]
    rejected: Counter[str]
    """Honest starts that were not accepted, by reason."""
    attackers_rejected: Counter[str]
    """Starts of attacking sessions that were not accepted. They are no fault."""
    lost: list[str]
    """Sessions that were accepted and did not end as they should, each in words."""
    attacked: int
    """Sessions whose own process was killed by an attack."""


def account_of(sessions: Iterable[Session], killed: set[int]) -> Account:
    account = Account(Counter(), Counter(), Counter(), [], 0)
    for session in sessions:
        _enter(account, session, killed)
    return account


def _enter(account: Account, session: Session, killed: set[int]) -> None:
    if session.answer != ACCEPTED:
        (account.rejected if session.is_honest else account.attackers_rejected)[session.answer] += 1
    elif session.pid in killed and session.reason == "signaled":
        account.attacked += 1
    elif wrong := wrong_with(session):
        account.lost.append(f"{session.id} ({session.kind}): {wrong}")
    else:
        account.served[session.kind if session.is_honest else "attackers"] += 1


def went_wrong(session: Session, killed: set[int]) -> bool:
    """Whether a session is a fault of the run: an honest one that was not accepted, or one that was lost."""
    account = account_of([session], killed)
    return bool(account.rejected or account.lost)


def wrong_with(session: Session) -> str | None:
    """Return what is wrong with the end of an accepted session."""
    if session.reason is None:
        return "there is no report of its end"
    if session.wants not in (ANY, session.reason):
        return f"it ended by {session.reason} instead of {session.wants}: {session.detail}"
    if session.is_honest and not session.result_dropped:
        nonce = session.result.get("nonce") if isinstance(session.result, dict) else None
        return None if nonce == session.nonce else f"its result is another: {str(session.result)[:80]}"
    return None


def faults(
    account: Account, *, grown_peak_mb: float, grown_end_mb: float, bounds: tuple[float, float], others: Iterable[str]
) -> Iterator[str]:
    """Yield all that makes the run fail, in words."""
    yield from (f"lost: {each}" for each in account.lost)
    yield from (f"{count} honest starts were not accepted: {why}" for why, count in account.rejected.items())
    if grown_peak_mb > bounds[0]:
        yield f"the supervisor grew by {grown_peak_mb:.0f} MiB; the bound is {bounds[0]:.0f}"
    if grown_end_mb > bounds[1]:
        yield f"after the attack the supervisor keeps {grown_end_mb:.0f} MiB more; the bound is {bounds[1]:.0f}"
    yield from others
