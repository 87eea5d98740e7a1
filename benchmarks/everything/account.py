"""Brings the ledger, the worker's events and the judgement together; the first fault stops the run."""

from __future__ import annotations

import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

from .judge import DISPATCH, faults_of_call, faults_of_process, faults_of_room, why_unserved
from .ledger import Call, End, Entry, Ledger, RoomCall

__all__ = ["Account", "Readiness", "Violation"]

NOT_TOLD = frozenset({"ProcessChanged", "MemorySampled", "Levels", "ProcessWarmed", "OfferAnswered", "Offered"})
"""Events that are too many to be kept in the ledger."""


class Violation(Exception):
    """Something that must not be. ``at`` is when, in seconds since the epoch."""

    def __init__(self, faults: list[str], at: float | None = None) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults
        self.at = time.time() if at is None else at


class Readiness:
    """Moments in which no session could start, by the worker's events."""

    def __init__(self) -> None:
        self.moments: deque[float] = deque(maxlen=1000)
        self._idle: set[str] = set()
        self._has_zygote = True

    def hear(self, name: str, event: dict[str, Any], now: float) -> None:
        """Take in an event. The worker samples its own readiness once a second, and misses shorter times."""
        if name == "connected":
            self._idle, self._has_zygote = set(), True
        elif name == "ProcessChanged":
            (self._idle.add if event["after"] == "idle" else self._idle.discard)(event["process_id"])
        elif name in ("ZygoteLost", "ZygoteStarted"):
            self._has_zygote = name == "ZygoteStarted"
        is_unready = name == "Levels" and event["problem"] is not None
        if is_unready or not (self._idle or self._has_zygote):
            self.moments.append(now)


class Account:
    """Judges calls, rooms and processes as they end, and counts them."""

    def __init__(self, ledger: Ledger, app_ledger: Path) -> None:
        self.ledger = ledger
        self.calls: Counter[tuple[str, str]] = Counter()
        """By plan and end."""
        self.rooms: Counter[str] = Counter()
        self.injected_causes: Counter[str] = Counter()
        """Reports whose cause was an injection, by reason."""
        self.planned = 0
        self.lost = 0
        self.gaps = 0
        """How often the stream of events was cut, or lost some."""
        self.turned_down: dict[str, list[tuple[float, str]]] = {}
        self.violation: Violation | None = None
        self._readiness = Readiness()
        self._started: dict[str, float] = {}
        self._briefs: dict[str, tuple[float, dict[str, Any]]] = {}
        """Of jobs of rooms: their reports as events tell them, without results."""
        self._file = app_ledger.open("rb")
        self._half_line = b""
        self._ended: Counter[str] = Counter()

    def close(self) -> None:
        self._file.close()

    def read_entries(self) -> None:
        """Take in what the app has written since."""
        *lines, self._half_line = (self._half_line + self._file.read()).split(b"\n")
        for line in lines:
            what, job_id, pid, at, room = line.decode().split()
            self.ledger.enter(Entry(what, job_id, int(pid), float(at), room))  # type: ignore[arg-type]

    # --- what the worker tells ---------------------------------------------------------------------

    def hear(self, name: str, event: dict[str, Any]) -> None:
        """Take in an event of the worker's."""
        if name in ("connected", "dropped"):
            self.gaps += 1
        self._readiness.hear(name, event, time.time())
        if name not in NOT_TOLD:
            self.ledger.note(event.get("at") or time.time(), f"worker {name} {_brief(event)}")
        if name == "TurnedDown":
            room = event["labels"].get("room")
            if room:
                self.turned_down.setdefault(room, []).append((event["at"], event["reason"]))
        elif name == "JobStarted" and event["source"] == "livekit":
            self._started[event["job_id"]] = event["at"]
        elif name == "JobEnded":
            self._on_job_ended(event["report"]["job_id"])
            if event["source"] == "livekit":
                self._briefs[event["report"]["job_id"]] = event["at"], event["report"]
        elif name == "ProcessEnded" and event["report"]["job_id"] is None:
            report = event["report"]
            facts = (report["pid"], report["reason"], report["signal"], report["detail"], event["at"])
            self.judge(faults_of_process(*facts, self.ledger.since(event["at"])), event["at"])

    def _on_job_ended(self, job_id: str) -> None:
        self._ended[job_id] += 1
        if self._ended[job_id] > 1:
            self.judge([f"{job_id}: its end was reported {self._ended[job_id]} times"])

    def end_by_events(self, call: Call) -> None:
        """Take a job's report from the events, if it has none and they told it."""
        started, (ended, brief) = self._started.pop(call.id, None), self._briefs.pop(call.id, (0.0, None))
        if call.end is None and brief is not None:
            call.end = End.of_events(brief, call.requested, started, ended)

    # --- judgement ---------------------------------------------------------------------------------

    def judge(self, faults: list[str], at: float | None = None) -> None:
        """Keep the first violation, which stops the run."""
        if faults and self.violation is None:
            self.violation = Violation(faults, at)

    def settle_call(self, call: Call) -> None:
        """Judge a job of which nothing more will come."""
        self.read_entries()
        entries = self.ledger.entries(call.id)
        end = call.end
        self.judge(
            faults_of_call(call, entries, self.ledger.since(call.requested)), end.ended if end else call.answered
        )
        if end is not None:
            line = f"report {call.id} {call.plan} {end.outcome}/{end.reason} pid {end.pid}: {end.detail[:200]}"
            self.ledger.note(end.ended, line)
            by_injection = not any(entry.what == "end" for entry in entries) and end.reason != "job_timeout"
            if by_injection:
                self.injected_causes[end.reason] += 1
            else:
                self.planned += 1
            self.calls[call.plan, f"{end.outcome}/{end.reason}"] += 1
        elif call.answer in ("rejected", "unreachable"):
            self.calls[call.plan, f"{call.answer}: {call.why}" if call.answer == "rejected" else call.answer] += 1
        else:
            self.lost += call.answer == "accepted"
            self.calls[call.plan, "lost with the worker" if call.answer == "accepted" else "no answer"] += 1

    def settle_room(self, room: RoomCall) -> None:
        """Judge a room whose caller has left, and the jobs that it had."""
        self.read_entries()
        room.turned_down = self.turned_down.pop(room.room, [])
        room.unready = [at for at in self._readiness.moments if abs(at - room.joined) <= DISPATCH]
        entered = self.ledger.entered(room.room)
        injections = self.ledger.since(room.joined)
        self.judge(faults_of_room(room, entered, injections), room.joined)
        if room.sign is not None:
            self.rooms["served"] += 1
        else:
            self.rooms[f"not served: {why_unserved(room, entered, injections)}"] += 1
        for call in room.jobs:
            self.settle_call(call)


def _brief(event: dict[str, Any]) -> str:
    report = event.get("report") or event
    names = ("job_id", "pid", "outcome", "reason", "cause", "generation", "state", "kind", "retried", "detail")
    return " ".join(f"{name}={report[name]}" for name in names if report.get(name) is not None)[:300]
