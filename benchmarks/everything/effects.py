"""The one table of injections: which cause each gives to the process that it hits, and what else it explains."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AFTERMATH", "DISTURBING", "DOWN", "EFFECTS", "Effect"]

AFTERMATH = 15.0
"""Seconds after an injection (or its end) for which it explains that no process was there in time."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What may come of an injection, beside nothing."""

    started: tuple[str, ...] = ()
    """Reasons of the report of a job that ran in the process that was hit."""
    after_own_end: tuple[str, ...] = ()
    """More of them, if the job had begun to end as planned."""
    unstarted: tuple[str, ...] = ()
    """Reasons of the report of a process, or of a job that it had not acknowledged."""
    disturbs: bool = False
    """Other jobs may find no process in time, and rooms no agent."""
    weight: int = 0
    """How often it is done, of all that is done by chance."""


EFFECTS: dict[str, Effect] = {
    "kill session": Effect(started=("signaled",), unstarted=("signaled",), weight=8),
    "kill idle": Effect(started=("signaled",), unstarted=("signaled",), disturbs=True, weight=6),
    # A job in its clean-up has deadlines that come before stall_timeout.
    "stop session": Effect(("stalled",), ("shutdown_timeout",), ("stalled", "start_timeout"), weight=3),
    "stop idle": Effect(("stalled",), ("shutdown_timeout",), ("stalled", "start_timeout"), disturbs=True, weight=3),
    # Too short for any deadline: a job that runs notices nothing. One that had not started goes elsewhere.
    "pause session": Effect(unstarted=("stalled", "start_timeout"), weight=3),
    "hold session": Effect(unstarted=("stalled", "start_timeout"), weight=3),
    "hold idle": Effect(unstarted=("stalled", "start_timeout"), disturbs=True, weight=3),
    "cancel": Effect(started=("cancelled",), unstarted=("cancelled",)),
    "kill zygote": Effect(disturbs=True, weight=2),
    "pause zygote": Effect(disturbs=True, weight=2),
    "hold zygote": Effect(disturbs=True, weight=2),
    "kill resident": Effect(disturbs=True, weight=3),
    "stop resident": Effect(unstarted=("stalled", "request_timeout"), disturbs=True, weight=1),
    "reload good": Effect(disturbs=True, weight=2),
    "reload bad": Effect(disturbs=True, weight=3),
    "files short": Effect(disturbs=True, weight=1),
    "memory short": Effect(started=("drained",), unstarted=("drained",), disturbs=True, weight=1),
    "drain worker": Effect(started=("drained",), unstarted=("drained",), disturbs=True, weight=1),
    "kill worker": Effect(disturbs=True, weight=1),
}

DISTURBING = frozenset(kind for kind, effect in EFFECTS.items() if effect.disturbs)
DOWN = frozenset({"kill worker", "drain worker", "memory short"})
"""While they last there is no worker, or one that takes nothing."""
