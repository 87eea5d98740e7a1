"""What a worker has agreed to with its server, job by job. A pure state machine: one table, and a memory.

The server's messages may come twice, late, or for what was never agreed to. Whatever comes, a job runs at most once,
and never unless it was offered and accepted.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Final

__all__ = ["Do", "Event", "JobTable", "Phase", "react"]

REMEMBERED = 2000
"""So many jobs that are over are still known, to tell a late message from one that makes no sense."""


class Phase(Enum):
    UNKNOWN = "unknown"
    OFFERED = "offered"
    """Whether it is taken is being found out."""
    ACCEPTED = "accepted"
    """A process is kept for it, and its assignment is waited for."""
    LIVE = "live"
    """It starts or runs."""
    TURNED_DOWN = "turned down"
    """It was not taken, or not in the end: by the app, for want of a process, or because the offer was withdrawn."""
    EXPIRED = "expired"
    """It was accepted, and its assignment did not come in time."""
    ENDED = "ended"


class Event(Enum):
    OFFER = "offer"
    ACCEPT = "accept"
    """A process is kept for it."""
    TURN_DOWN = "turn down"
    ASSIGNMENT = "assignment"
    EXPIRY = "expiry"
    TERMINATION = "termination"
    LOSS = "loss"
    """The connection is gone on which it was agreed."""
    END = "end"


class Do(Enum):
    """What is to be done about it."""

    NOTHING = "nothing"
    CONSIDER = "consider"
    """Find out whether it can be taken."""
    ANSWER_YES = "answer yes"
    """And wait for the assignment."""
    ANSWER_YES_AGAIN = "answer yes again"
    ANSWER_NO = "answer no"
    START = "start"
    RELEASE = "release"
    """Let the process that is kept for it go."""
    CANCEL = "cancel"
    REFUSE = "refuse"
    """An assignment that must not be carried out: to be logged."""
    TELL_FAILURE = "tell failure"
    """The server takes a job for running that was accepted, and will not run."""
    IGNORE = "ignore"
    """Of no consequence: to be logged for those who look closely."""


_OVER: Final = (Phase.TURNED_DOWN, Phase.EXPIRED, Phase.ENDED)

_TABLE: Final[dict[tuple[Phase, Event], tuple[Phase, Do]]] = {
    # A new offer of what was turned down is a new question: the server may ask again after other workers.
    (Phase.UNKNOWN, Event.OFFER): (Phase.OFFERED, Do.CONSIDER),
    (Phase.TURNED_DOWN, Event.OFFER): (Phase.OFFERED, Do.CONSIDER),
    (Phase.EXPIRED, Event.OFFER): (Phase.OFFERED, Do.CONSIDER),
    (Phase.OFFERED, Event.OFFER): (Phase.OFFERED, Do.NOTHING),  # the answer to the first serves both
    (Phase.ACCEPTED, Event.OFFER): (Phase.ACCEPTED, Do.ANSWER_YES_AGAIN),
    (Phase.LIVE, Event.OFFER): (Phase.LIVE, Do.ANSWER_NO),
    (Phase.ENDED, Event.OFFER): (Phase.ENDED, Do.ANSWER_NO),
    (Phase.OFFERED, Event.ACCEPT): (Phase.ACCEPTED, Do.ANSWER_YES),
    (Phase.OFFERED, Event.TURN_DOWN): (Phase.TURNED_DOWN, Do.ANSWER_NO),
    # Withdrawn while it was found out: whoever did is told what to do with the outcome.
    (Phase.TURNED_DOWN, Event.ACCEPT): (Phase.TURNED_DOWN, Do.RELEASE),
    (Phase.TURNED_DOWN, Event.TURN_DOWN): (Phase.TURNED_DOWN, Do.NOTHING),
    (Phase.ACCEPTED, Event.ASSIGNMENT): (Phase.LIVE, Do.START),
    (Phase.ACCEPTED, Event.EXPIRY): (Phase.EXPIRED, Do.RELEASE),
    (Phase.EXPIRED, Event.ASSIGNMENT): (Phase.ENDED, Do.TELL_FAILURE),
    (Phase.OFFERED, Event.TERMINATION): (Phase.TURNED_DOWN, Do.NOTHING),
    (Phase.ACCEPTED, Event.TERMINATION): (Phase.TURNED_DOWN, Do.RELEASE),
    (Phase.LIVE, Event.TERMINATION): (Phase.LIVE, Do.CANCEL),
    (Phase.OFFERED, Event.LOSS): (Phase.TURNED_DOWN, Do.NOTHING),
    (Phase.ACCEPTED, Event.LOSS): (Phase.TURNED_DOWN, Do.RELEASE),
    (Phase.LIVE, Event.LOSS): (Phase.LIVE, Do.NOTHING),
    (Phase.LIVE, Event.END): (Phase.ENDED, Do.NOTHING),
}


def react(phase: Phase, event: Event) -> tuple[Phase, Do]:
    """The next phase, and what to do."""
    if (phase, event) in _TABLE:
        return _TABLE[phase, event]
    return phase, Do.REFUSE if event is Event.ASSIGNMENT else Do.IGNORE


class JobTable:
    """The phase of each job. A job that is over is remembered for a while."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._phases: dict[str, Phase] = {}
        self._over: OrderedDict[str, Phase] = OrderedDict()

    def phase(self, job_id: str) -> Phase:
        return self._phases.get(job_id) or self._over.get(job_id) or Phase.UNKNOWN

    def on(self, job_id: str, event: Event) -> Do:
        """Take note of an event, and say what to do."""
        phase, do = react(self.phase(job_id), event)
        self._phases.pop(job_id, None)
        self._over.pop(job_id, None)
        if phase in _OVER:
            self._over[job_id] = phase
            if len(self._over) > self._remembered:
                self._over.popitem(last=False)
        elif phase is not Phase.UNKNOWN:
            self._phases[job_id] = phase
        return do

    def current(self) -> dict[str, Phase]:
        """Those that are not over."""
        return dict(self._phases)
