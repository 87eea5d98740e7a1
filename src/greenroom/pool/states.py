"""The whole life of a process, in one table. Pure.

``REQUESTED → FORKED → WARMING → IDLE → CLAIMED → RUNNING → DRAINING → EXITED → REAPED``, and from
any live state ``KILLING``. Only death and ``SPARE`` lead out of that; ``SPARE`` leads to ``ENDING``, and
takes the reason back. A session that is offered before it is ordered holds its process in ``RESERVED``
meanwhile: ``IDLE → RESERVED → CLAIMED``, or back to ``IDLE`` if nothing comes of it.
A job whose end has steps of its own goes through ``ENDING``: ``RUNNING → ENDING → DRAINING``.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["DEADLINES", "LIVE", "TABLE", "Event", "IllegalTransition", "State", "next_state"]


class State(Enum):
    REQUESTED = "requested"
    """The zygote was asked to fork it."""
    FORKED = "forked"
    """It exists."""
    WARMING = "warming"
    """It has armed its lifeline and runs ``prewarm``."""
    IDLE = "idle"
    """It waits, warm, for its one job. The only state without a deadline."""
    RESERVED = "reserved"
    """It is kept for a session that was offered, and whose order is still to come."""
    CLAIMED = "claimed"
    """A job was sent to it."""
    RUNNING = "running"
    """It has acknowledged the job."""
    ENDING = "ending by itself"
    """The job has begun to end by itself, and has its own time for that."""
    DRAINING = "draining"
    """The entrypoint has ended; callbacks and clean-up go on."""
    KILLING = "killing"
    """It was decided to end it; the first reason stands, unless ``SPARE`` takes it back."""
    EXITED = "exited"
    """It is dead for certain; its status may still be on its way."""
    REAPED = "reaped"
    """It is gone, with everything it had started, and its report is written."""

    @property
    def public(self) -> str:
        """The name outside: in events, metrics, the API and reports."""
        return _PUBLIC.get(self, self.value)


_PUBLIC = {State.ENDING: State.DRAINING.value}


class Event(Enum):
    FORK_ANSWERED = "fork answered"
    FORK_FAILED = "fork failed"
    HELLO = "hello"
    WARM = "warm"
    PREWARM_FAILED = "prewarm failed"
    RESERVE = "reserve"
    ANSWERED = "answered"
    RELEASE = "release"
    CLAIM = "claim"
    STARTED = "started"
    ENDING = "ending"
    ENDED = "ended"
    CLEANING_UP = "cleaning up"
    KILL = "kill"
    SPARE = "spare"
    DEATH = "death"
    REAP = "reap"


class IllegalTransition(Exception):
    """An event came in a state in which it cannot happen: the process does not keep to the protocol."""


_S, _E = State, Event

# One row a state: what can happen in it, and what it then is. What is not here is illegal.
TABLE: dict[State, dict[Event, State]] = {
    _S.REQUESTED: {
        _E.FORK_ANSWERED: _S.FORKED,
        _E.FORK_FAILED: _S.REAPED,  # there never was a process
        _E.KILL: _S.KILLING,
    },
    _S.FORKED: {
        _E.HELLO: _S.WARMING,
        _E.KILL: _S.KILLING,
        _E.DEATH: _S.EXITED,
    },
    _S.WARMING: {
        _E.WARM: _S.IDLE,
        _E.PREWARM_FAILED: _S.KILLING,
        _E.KILL: _S.KILLING,
        _E.DEATH: _S.EXITED,
    },
    _S.IDLE: {
        _E.RESERVE: _S.RESERVED,
        _E.CLAIM: _S.CLAIMED,
        _E.KILL: _S.KILLING,
        _E.DEATH: _S.EXITED,
    },
    _S.RESERVED: {
        _E.ANSWERED: _S.RESERVED,  # the app's request hook, which runs in the process that the session would get
        _E.RELEASE: _S.IDLE,
        _E.CLAIM: _S.CLAIMED,
        _E.KILL: _S.KILLING,
        _E.DEATH: _S.EXITED,
    },
    _S.CLAIMED: {
        _E.STARTED: _S.RUNNING,
        _E.KILL: _S.KILLING,
        _E.DEATH: _S.EXITED,
    },
    _S.RUNNING: {
        _E.ENDING: _S.ENDING,
        _E.ENDED: _S.DRAINING,
        _E.KILL: _S.KILLING,
        _E.DEATH: _S.EXITED,
    },
    _S.ENDING: {
        _E.ENDED: _S.DRAINING,
        _E.KILL: _S.KILLING,
        _E.DEATH: _S.EXITED,
    },
    _S.DRAINING: {
        _E.CLEANING_UP: _S.DRAINING,
        _E.KILL: _S.KILLING,
        _E.DEATH: _S.EXITED,
    },
    # What the process had sent before it learned, or before the signal hit, still arrives here, and
    # counts: above all STARTED, after which a job must never be started again.
    _S.KILLING: {
        _E.FORK_ANSWERED: _S.KILLING,
        _E.FORK_FAILED: _S.REAPED,
        _E.HELLO: _S.KILLING,
        _E.WARM: _S.KILLING,
        _E.PREWARM_FAILED: _S.KILLING,
        _E.ANSWERED: _S.KILLING,
        _E.STARTED: _S.KILLING,
        _E.ENDING: _S.KILLING,
        _E.ENDED: _S.KILLING,
        _E.CLEANING_UP: _S.KILLING,
        _E.SPARE: _S.ENDING,  # the job's own end had begun before it was told to end, so the order is void
        _E.KILL: _S.KILLING,
        _E.DEATH: _S.EXITED,
    },
    # Likewise: what is read from the channels of a process that is dead already.
    _S.EXITED: {
        _E.HELLO: _S.EXITED,
        _E.WARM: _S.EXITED,
        _E.PREWARM_FAILED: _S.EXITED,
        _E.ANSWERED: _S.EXITED,
        _E.STARTED: _S.EXITED,
        _E.ENDING: _S.EXITED,
        _E.ENDED: _S.EXITED,
        _E.CLEANING_UP: _S.EXITED,
        _E.KILL: _S.EXITED,
        _E.DEATH: _S.EXITED,
        _E.REAP: _S.REAPED,
    },
    _S.REAPED: {_E.KILL: _S.REAPED},
}

LIVE = frozenset(set(State) - {_S.REQUESTED, _S.EXITED, _S.REAPED})
"""The states in which there is a process."""

# What bounds each state: the name of an option, of a constant of the pool's, or of a fact of the app's.
DEADLINES: dict[State, str | None] = {
    _S.REQUESTED: "FORK_TIMEOUT",
    _S.FORKED: "prewarm_timeout",
    _S.WARMING: "prewarm_timeout",
    _S.IDLE: None,
    _S.RESERVED: "reservation_timeout",
    _S.CLAIMED: "start_timeout",
    _S.RUNNING: "job_timeout",
    _S.ENDING: "end_timeout",
    _S.DRAINING: "shutdown_timeout",
    _S.KILLING: "cleanup_timeout",
    _S.EXITED: "REAP_TIMEOUT",
    _S.REAPED: None,
}


def next_state(state: State, event: Event) -> State:
    """The state after an event. Raises :class:`IllegalTransition`."""
    try:
        return TABLE[state][event]
    except KeyError:
        raise IllegalTransition(f"{event.value!r} cannot happen to a process that is {state.value}") from None
