"""The judgement: which ends are possible for what happened to a job, and what is wrong with the one it had. Pure.

The rule for races is this. An end that the job brings about itself is possible exactly if its app had written ``end``
before; one that was injected, exactly if the injection hit the job's process (or the job) while it lived. So of a
job that was killed without having written ``end``, nothing but the kill can be the cause; of one that had, both can.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from .effects import AFTERMATH, DISTURBING, DOWN, EFFECTS
from .ledger import Call, End, Entry, Injection, RoomCall
from .plans import JOB_TIMEOUT, PLANS, Plan

__all__ = ["DISPATCH", "faults_of_call", "faults_of_process", "faults_of_room", "possible_ends", "why_unserved"]

REJECTIONS = {
    "full": None,
    "warming": None,
    "memory": frozenset({"memory short"}),
    "cpu": None,
    "breaker_open": DISTURBING,
    "draining": frozenset({"drain worker", "memory short"}),
    "rejected_by_app": DISTURBING,
    "offer_timeout": DISTURBING,
    "stalled": None,
}
"""The reasons to reject, and the injections of which one must explain it; ``None``: the load may, too."""

BEFORE = 5.0
"""Seconds that a process may have been hit before its job was requested, and still get it."""
AFTER = 0.5
"""Seconds between two readings of the clock by two processes that say the same."""
CUT_OFF = DOWN | {"files short"}
"""While they last, requests and LiveKit's offers may not reach the worker."""
_ZYGOTE = frozenset({"kill zygote", "pause zygote", "hold zygote"})
BURIAL = 8.0
"""Seconds from a process's death until nothing of it is left."""
DISPATCH = 4.0
"""Seconds in which a LiveKit server finds a worker or gives up."""


def overlapping(
    injections: Sequence[Injection], kinds: Collection[str], begin: float, end: float, aftermath: float = 0.0
) -> list[Injection]:
    """Return the injections of some kinds that were in effect during a span, or up to ``aftermath`` before."""
    return [
        one for one in injections
        if one.kind in kinds and one.at <= end and (one.until if one.until is not None else one.at) + aftermath >= begin
    ]  # fmt: skip


# --- one job -------------------------------------------------------------------------------------


def faults_of_call(call: Call, entries: Sequence[Entry], injections: Sequence[Injection]) -> list[str]:
    """Return what is wrong with the account of a job, in words; empty if it is exact."""
    return [f"{call.id} ({call.plan}): {fault}" for fault in _faults(call, entries, injections)]


def _faults(call: Call, entries: Sequence[Entry], injections: Sequence[Injection]) -> Iterator[str]:
    enters = [entry for entry in entries if entry.what == "enter"]
    if len(enters) > 1:
        yield f"its entrypoint was entered {len(enters)} times, in {', '.join(str(each.pid) for each in enters)}"
    match call.answer:
        case "rejected":
            yield from _faults_of_rejection(call, enters, injections)
        case "unreachable":
            if not overlapping(injections, CUT_OFF, call.requested, call.answered, AFTER):
                yield f"the worker could not be reached, but no injection explains that: {call.why}"
            if enters:
                yield "its entrypoint was entered, though its request did not reach the worker"
        case "accepted" | "failed" | "unanswered":
            yield from _faults_of_end(call, enters, entries, injections)
        case _:
            yield f"its request got the wrong answer {call.why or call.answer}"


def _faults_of_rejection(call: Call, enters: Sequence[Entry], injections: Sequence[Injection]) -> Iterator[str]:
    if enters:
        yield f"it was rejected ({call.why}), but its entrypoint was entered"
    if call.why == "rejected_by_app" and PLANS[call.plan].is_refused:
        return
    if fault := _fault_of_reason(call.why, call.requested, call.answered, injections):
        yield fault


def _fault_of_reason(why: str, begin: float, end: float, injections: Sequence[Injection]) -> str | None:
    if why not in REJECTIONS:
        return f"it was rejected with the unknown reason {why!r}"
    kinds = REJECTIONS[why]
    if kinds is not None and not overlapping(injections, kinds, begin, end, AFTERMATH):
        return f"it was rejected ({why}), but no injection explains that"
    return None


def _faults_of_end(
    call: Call, enters: Sequence[Entry], entries: Sequence[Entry], injections: Sequence[Injection]
) -> Iterator[str]:
    end = call.end
    if end is None:
        yield from _faults_of_missing(call, enters, injections)
        return
    if PLANS[call.plan].is_refused and not overlapping(
        injections, DISTURBING, call.requested, call.answered, AFTERMATH
    ):
        yield "it was accepted, though the app rejects it"
    possible = possible_ends(call, entries, injections)
    if end.reason not in possible:
        words = ", ".join(f"{reason} ({why})" for reason, why in possible.items()) or "none"
        yield f"{end.outcome}/{end.reason} was not the cause: {end.detail}. Possible: {words}"
    if end.started is None and enters:
        yield f"its report has no start ({end.detail}), but its entrypoint was entered"
    if call.answer == "failed" and end.started is not None:
        yield "its caller got the answer that it did not start, but its report has a start"
    if end.started is not None and not enters and not hits(call, injections) and call.answer == "accepted":
        yield "it was started, but its entrypoint was not entered, and no injection explains that"
    if enters and end.pid != enters[0].pid:
        yield f"its report names process {end.pid}, but process {enters[0].pid} entered its entrypoint"
    yield from _faults_of_words(call, end, entries, injections)


def _faults_of_missing(call: Call, enters: Sequence[Entry], injections: Sequence[Injection]) -> Iterator[str]:
    seen = call.missed if call.missed is not None else call.answered
    if overlapping(injections, {"kill worker"}, call.requested - AFTER, seen + AFTER):
        return
    if call.answer == "unanswered" and not enters:
        if not overlapping(injections, CUT_OFF, call.requested - AFTER, call.answered, AFTER):
            yield f"its request got no answer, but no injection explains that: {call.why}"
        return
    yield f"there is no report of its end, but the worker was not killed: {call.missed_why}"


def hits(call: Call, injections: Sequence[Injection]) -> list[Injection]:
    """Return the injections that hit a job's process, or the job, while it had it."""
    end = call.end
    assert end is not None
    begin, last = end.requested - BEFORE, end.ended + AFTER
    return [
        one for one in injections
        if begin <= one.at <= last
        and (one.job_id == call.id or (one.pid is not None and one.pid == end.pid) or _drains(one, end))
    ]  # fmt: skip


def _drains(injection: Injection, end: End) -> bool:
    return injection.kind in ("drain worker", "memory short") and injection.at >= end.requested - AFTER


def possible_ends(call: Call, entries: Sequence[Entry], injections: Sequence[Injection]) -> dict[str, str]:
    """Return the reasons that the report may have, each with what would make it true."""
    end, plan = call.end, PLANS[call.plan]
    assert end is not None
    possible: dict[str, str] = {}
    if end.started is None:
        for one in hits(call, injections):
            possible |= dict.fromkeys(EFFECTS[one.kind].unstarted, str(one))
        if overlapping(injections, DISTURBING, end.requested, end.ended, AFTERMATH):
            possible.setdefault("start_timeout", "an injection into the worker")
        if call.answer in ("unanswered", "failed"):
            possible.setdefault("cancelled", "its client had gone")
        return possible
    has_ended = _has_ended(end, plan, entries)
    if has_ended:
        possible[plan.reason] = "as planned"
    for one in hits(call, injections):
        effect = EFFECTS[one.kind]
        possible |= dict.fromkeys(effect.started, str(one))
        possible |= dict.fromkeys(effect.after_own_end if has_ended else (), str(one))
    if call.answer == "unanswered":
        possible.setdefault("cancelled", "its client had gone")
    return possible


def _has_ended(end: End, plan: Plan, entries: Sequence[Entry]) -> bool:
    """Tell whether a job had come to what ends it, if nothing else does."""
    assert end.started is not None
    if plan.reason == "job_timeout":
        return end.ended - end.started >= JOB_TIMEOUT - AFTER
    return any(entry.what == "end" for entry in entries)


def _faults_of_words(call: Call, end: End, entries: Sequence[Entry], injections: Sequence[Injection]) -> Iterator[str]:
    """Yield what a report says beside its reason, and cannot be."""
    plan, struck = PLANS[call.plan], hits(call, injections)
    kills = [one for one in struck if "signaled" in EFFECTS[one.kind].started]
    if end.reason == "signaled":
        signals = {9} if kills else set()
        signals |= {plan.signal} if plan.signal and _wrote_end(entries) else set()
        if end.signal not in signals:
            yield f"signal {end.signal} ended it; possible signals: {sorted(signals)}"
    elif end.reason == "cancelled" and call.answer == "accepted":
        notes = [one.note for one in struck if one.kind == "cancel"]
        if notes and not any(note in end.detail for note in notes):
            yield f"its report does not name the cause of the cancel ({notes[0]}): {end.detail}"
    elif end.reason == plan.reason and not (struck and end.reason == "stalled"):
        yield from _faults_of_plan(call, end, plan, injections)


def _faults_of_plan(call: Call, end: End, plan: Plan, injections: Sequence[Injection]) -> Iterator[str]:
    if end.outcome != plan.outcome:
        yield f"its outcome is {end.outcome}, not {plan.outcome}"
    result = {"ended_by": call.nonce} if call.plan == "room" else call.nonce
    if plan.reason == "completed" and end.result != result and not end.is_brief:
        yield f"its result is {str(end.result)[:100]!r}, not its nonce {call.nonce!r}"
    if plan.exit_code is not None and end.exit_code != plan.exit_code:
        yield f"its exit code is {end.exit_code}, not {plan.exit_code}"
    if plan.has_stack and not end.stack_dump:
        yield "its report has no stack"
    # The zygote counts them. What it has counted is lost with it.
    counts = not overlapping(injections, _ZYGOTE, end.ended, end.ended + BURIAL, AFTERMATH)
    if plan.leaves_processes and not end.descendants_killed and counts:
        yield "it left a process behind, but its report counts no killed process"


def _wrote_end(entries: Sequence[Entry]) -> bool:
    return any(entry.what == "end" for entry in entries)


# --- a process without a job ---------------------------------------------------------------------

_PREWARM = _ZYGOTE | {"reload bad", "files short"}
_BY_WORKER = frozenset({"idle_expired", "drained", "cancelled"})


def faults_of_process(
    pid: int | None, reason: str, signal: int | None, detail: str, at: float, injections: Sequence[Injection]
) -> list[str]:
    """Return what is wrong with the report of a process that never had a job."""
    if reason in _BY_WORKER:
        return []
    near = [one for one in injections if pid is not None and at - AFTERMATH <= one.at <= at + AFTER]
    struck = [one for one in near if one.pid == pid]
    if any(reason in EFFECTS[one.kind].unstarted for one in struck) and signal in (None, 9):
        return []
    if reason == "signaled" and signal == 9 and any(one.kind == "kill resident" for one in struck):
        return []
    if reason in ("prewarm_failed", "prewarm_timeout") and overlapping(injections, _PREWARM, at, at, 2 * AFTERMATH):
        return []
    exits = [one for one in overlapping(injections, _PREWARM, at, at, 2 * AFTERMATH) if one.note == "prewarm exits"]
    if reason == "exited" and exits and ("was warming" in detail or "was forked" in detail):
        return []
    return [f"process {pid} ended by {reason} (signal {signal}), but no injection explains that: {detail}"]


# --- one room ------------------------------------------------------------------------------------


def faults_of_room(room: RoomCall, entered: Sequence[Entry], injections: Sequence[Injection]) -> list[str]:
    """Return what is wrong with the account of a room, in words. Its jobs have accounts of their own."""
    return [f"room {room.room}: {fault}" for fault in _faults_of_room(room, entered, injections)]


def _faults_of_room(room: RoomCall, entered: Sequence[Entry], injections: Sequence[Injection]) -> Iterator[str]:
    jobs = {entry.job_id for entry in entered} | {call.id for call in room.jobs}
    if room.sign is not None and room.sign not in {entry.job_id for entry in entered}:
        yield f"its caller saw an agent of job {room.sign}, whose entrypoint was not entered"
    if len(jobs) > 1 and not overlapping(injections, CUT_OFF, room.joined, room.gave_up):
        yield f"it was dispatched once, but has {len(jobs)} jobs: {', '.join(sorted(jobs))}"
    for at, why in room.turned_down:
        if fault := _fault_of_reason(why, at, at, injections):
            yield fault
    if room.sign is None and not _why_unserved(room, entered, injections):
        yield f"no agent came within {room.gave_up - room.joined:.1f} s, and no injection explains that"


def _why_unserved(room: RoomCall, entered: Sequence[Entry], injections: Sequence[Injection]) -> str | None:
    """Return why a caller saw no agent; ``None`` if nothing explains it."""
    if room.turned_down:
        return f"rejected: {room.turned_down[0][1]}"
    pids = {entry.pid for entry in entered} | {call.end.pid for call in room.jobs if call.end}
    ids = {entry.job_id for entry in entered} | {call.id for call in room.jobs}
    # A room that nobody has taken within 2.8 s is given up by LiveKit. One that was taken can still lose its agent.
    until = room.gave_up if ids else room.joined + DISPATCH
    if down := overlapping(injections, CUT_OFF, room.joined - DISPATCH, until, DISPATCH):
        return down[0].kind
    for one in injections:
        is_aimed = one.job_id in ids or (one.pid is not None and one.pid in pids)
        if is_aimed and room.joined - BEFORE <= one.at <= room.gave_up:
            return one.kind
    shaken = overlapping(injections, DISTURBING, room.joined - DISPATCH, room.joined + DISPATCH, AFTERMATH)
    return "not ready, because of an injection" if shaken and room.unready else None


def why_unserved(room: RoomCall, entered: Sequence[Entry], injections: Sequence[Injection]) -> str:
    """Name the kind of cause for which a room had no agent, for the table of a run."""
    return _why_unserved(room, entered, injections) or "unexplained"
