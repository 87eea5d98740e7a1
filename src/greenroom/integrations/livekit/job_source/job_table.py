"""State machine of each job between a worker and its server: one table, and a memory of ended jobs. Pure.

The server's messages may come twice, late, or for a job that was never accepted. In each case, a job runs at most
once, and only after an offer and an acceptance.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Final

__all__ = ["Do", "Event", "JobTable", "Phase", "react"]

REMEMBERED = 2000
"""Number of ended jobs that are remembered, to distinguish a late message from one that makes no sense."""


class Phase(Enum):
    """Phase of a job."""

    UNKNOWN = "unknown"
    OFFERED = "offered"
    """The worker is deciding whether it takes the job."""
    ACCEPTED = "accepted"
    """A process is reserved for the job, and the assignment is awaited."""
    LIVE = "live"
    """The job starts or runs."""
    REJECTED = "rejected"
    """The app rejected the job, no process was available, or the server withdrew the job before it ran."""
    EXPIRED = "expired"
    """The job was accepted, and its assignment did not come in time."""
    ENDED = "ended"


class Event(Enum):
    """Event in the life of a job."""

    OFFER = "offer"
    ACCEPT = "accept"
    """A process is reserved for the job."""
    REJECT = "reject"
    ASSIGNMENT = "assignment"
    EXPIRY = "expiry"
    TERMINATION = "termination"
    LOSS = "loss"
    """The connection of the job's offer is gone."""
    END = "end"


class Do(Enum):
    """Action that an event requires."""

    NOTHING = "nothing"
    CONSIDER = "consider"
    """Find out whether the worker can take the job."""
    ANSWER_YES = "answer yes"
    """Accept the offer, and wait for the assignment."""
    ANSWER_YES_AGAIN = "answer yes again"
    ANSWER_NO = "answer no"
    START = "start"
    RELEASE = "release"
    """Release the process that is reserved for the job."""
    CANCEL = "cancel"
    REFUSE = "refuse"
    """Log an assignment, and do not start its job."""
    REPORT_FAILURE = "report failure"
    """Report a failure: the server thinks that the accepted job runs, and the job will not run."""
    IGNORE = "ignore"
    """Log the event at debug level, and do nothing."""


_OVER: Final = (Phase.REJECTED, Phase.EXPIRED, Phase.ENDED)

_TABLE: Final[dict[tuple[Phase, Event], tuple[Phase, Do]]] = {
    # A new offer of a rejected job is a new question: the server may ask again after other workers.
    (Phase.UNKNOWN, Event.OFFER): (Phase.OFFERED, Do.CONSIDER),
    (Phase.REJECTED, Event.OFFER): (Phase.OFFERED, Do.CONSIDER),
    (Phase.EXPIRED, Event.OFFER): (Phase.OFFERED, Do.CONSIDER),
    (Phase.OFFERED, Event.OFFER): (Phase.OFFERED, Do.NOTHING),  # the answer to the first serves both
    (Phase.ACCEPTED, Event.OFFER): (Phase.ACCEPTED, Do.ANSWER_YES_AGAIN),
    (Phase.LIVE, Event.OFFER): (Phase.LIVE, Do.ANSWER_NO),
    (Phase.ENDED, Event.OFFER): (Phase.ENDED, Do.ANSWER_NO),
    (Phase.OFFERED, Event.ACCEPT): (Phase.ACCEPTED, Do.ANSWER_YES),
    (Phase.OFFERED, Event.REJECT): (Phase.REJECTED, Do.ANSWER_NO),
    # The offer was withdrawn while the worker was deciding: this is the action at the decision.
    (Phase.REJECTED, Event.ACCEPT): (Phase.REJECTED, Do.RELEASE),
    (Phase.REJECTED, Event.REJECT): (Phase.REJECTED, Do.NOTHING),
    (Phase.ACCEPTED, Event.ASSIGNMENT): (Phase.LIVE, Do.START),
    (Phase.ACCEPTED, Event.EXPIRY): (Phase.EXPIRED, Do.RELEASE),
    (Phase.EXPIRED, Event.ASSIGNMENT): (Phase.ENDED, Do.REPORT_FAILURE),
    (Phase.OFFERED, Event.TERMINATION): (Phase.REJECTED, Do.NOTHING),
    (Phase.ACCEPTED, Event.TERMINATION): (Phase.REJECTED, Do.RELEASE),
    (Phase.LIVE, Event.TERMINATION): (Phase.LIVE, Do.CANCEL),
    (Phase.OFFERED, Event.LOSS): (Phase.REJECTED, Do.NOTHING),
    (Phase.ACCEPTED, Event.LOSS): (Phase.REJECTED, Do.RELEASE),
    (Phase.LIVE, Event.LOSS): (Phase.LIVE, Do.NOTHING),
    (Phase.LIVE, Event.END): (Phase.ENDED, Do.NOTHING),
}


def react(phase: Phase, event: Event) -> tuple[Phase, Do]:
    """Return the next phase, and the action."""
    if (phase, event) in _TABLE:
        return _TABLE[phase, event]
    return phase, Do.REFUSE if event is Event.ASSIGNMENT else Do.IGNORE


class JobTable:
    """Phase of each job. The table remembers the last ``remembered`` jobs that are over."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._phases: dict[str, Phase] = {}
        self._over: OrderedDict[str, Phase] = OrderedDict()

    def phase(self, job_id: str) -> Phase:
        return self._phases.get(job_id) or self._over.get(job_id) or Phase.UNKNOWN

    def on(self, job_id: str, event: Event) -> Do:
        """Note an event, and return the action."""
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
        """Return the phases of the jobs that are not over."""
        return dict(self._phases)
