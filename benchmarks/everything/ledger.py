"""What was done to the worker, what was asked of it, and what its app wrote down. Plain data, kept in one ledger."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Answer", "Call", "End", "Entry", "Injection", "Ledger", "RoomCall"]

Answer = Literal["pending", "accepted", "rejected", "failed", "unanswered", "unreachable", "odd"]
"""``failed``: accepted, and told at once that it did not start. ``unanswered``: the connection broke. ``odd``: an
answer that has no place in the API."""

NEAR = 20.0
"""Seconds around a violation of which the ledger is printed."""
LONGEST_EFFECT = 180.0
"""Seconds for which an injection can last, its aftermath included."""
KEPT = 4000
"""Lines of the ledger that are kept for that."""


@dataclass(slots=True)
class Injection:
    """One thing that was done to the worker on purpose. Times are seconds since the epoch."""

    at: float
    kind: str
    """A key of :data:`.effects.EFFECTS`."""
    pid: int | None = None
    """The process that it hit, if it was one."""
    job_id: str | None = None
    """The job at which it was aimed. What was idle may have had another one by then."""
    until: float | None = None
    """When it was undone, if it is to be."""
    note: str = ""
    """Text by which a report can be recognised."""

    def __str__(self) -> str:
        parts = [self.kind, f"pid {self.pid}" if self.pid else "", self.job_id or "", self.note]
        return " ".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that the app has written: it has entered an entrypoint, or is about to end as planned."""

    what: Literal["enter", "end"]
    job_id: str
    pid: int
    at: float
    room: str = "-"


@dataclass(frozen=True, slots=True)
class End:
    """A report, as far as it is judged."""

    outcome: str
    reason: str
    detail: str
    pid: int | None
    requested: float
    started: float | None
    ended: float
    exit_code: int | None = None
    signal: int | None = None
    result: Any = None
    stack_dump: str | None = None
    descendants_killed: int = 0
    is_brief: bool = False
    """It comes from an event, which has no result."""

    @classmethod
    def of_events(cls, brief: dict[str, Any], requested: float, started: float | None, ended: float) -> End:
        """Return what the events say: of a job whose worker has ended in good order before it could be asked."""
        names = ("outcome", "reason", "detail", "pid", "exit_code", "signal", "stack_dump")
        facts = {name: brief[name] for name in names}
        return cls(**facts, requested=requested, started=started, ended=ended, is_brief=True)

    @classmethod
    def of(cls, report: dict[str, Any]) -> End:
        """Return what the API's report says."""
        times = report["timings"]
        names = ("outcome", "reason", "detail", "pid", "exit_code", "signal", "result", "stack_dump")
        return cls(
            **{name: report[name] for name in names},
            descendants_killed=report["descendants_killed"],
            requested=times["requested"],
            started=times["started"],
            ended=times["ended"],
        )


@dataclass(slots=True)
class Call:
    """One job, from the request to its report."""

    id: str
    plan: str
    """A key of :data:`.plans.PLANS`."""
    nonce: str = ""
    requested: float = 0.0
    answer: Answer = "pending"
    why: str = ""
    """The reason of a rejection, or what was odd."""
    answered: float = 0.0
    end: End | None = None
    missed: float | None = None
    """When it was certain that there will be no report."""
    missed_why: str = ""


@dataclass(slots=True)
class RoomCall:
    """One room: a caller who waits for an agent."""

    room: str
    nonce: str
    joined: float = 0.0
    """When the caller was in the room, and with that its agent dispatched; 0 if the server did not let it in."""
    sign: str | None = None
    """The id of the job whose agent the caller has seen, with the room's nonce."""
    signed: float = 0.0
    gave_up: float = 0.0
    turned_down: list[tuple[float, str]] = field(default_factory=list)
    """When the worker rejected an offer of this room, and why."""
    unready: list[float] = field(default_factory=list)
    """When the worker said, around the dispatch, that no session could start: a LiveKit server does not ask it then."""
    jobs: list[Call] = field(default_factory=list)
    """Those that the worker accepted for it."""


class Ledger:
    """All of a run. Injections are found by time, process and job."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", buffering=1)
        """All lines, as they come; what is kept here is for the end of the run."""
        self.injections: list[Injection] = []
        self.counts: Counter[str] = Counter()
        self.touched: set[str] = set()
        """Jobs at which something was aimed: they are left alone from then on, so that a cause stays one cause."""
        self.hit: dict[int, float] = {}
        """When something was last aimed at a process."""
        self._entries: dict[str, list[Entry]] = defaultdict(list)
        self._rooms: dict[str, list[Entry]] = defaultdict(list)
        self._lines: deque[tuple[float, str]] = deque(maxlen=KEPT)

    def inject(self, injection: Injection) -> Injection:
        """Note an injection; to be called before it is done, so that nothing can come of it earlier."""
        self.injections.append(injection)
        self.counts[injection.kind] += 1
        if injection.job_id:
            self.touched.add(injection.job_id)
        if injection.pid:
            self.hit[injection.pid] = injection.at
        self.note(injection.at, f"inject {injection}")
        return injection

    def void(self, injection: Injection) -> None:
        """Take an injection back: its process was gone already."""
        self.injections.remove(injection)
        self.counts[injection.kind] -= 1
        self.note(injection.at, f"void   {injection}: it was gone")

    def since(self, at: float) -> list[Injection]:
        """Return the injections that can matter to what began at a moment, and not those of the whole hour."""
        first = bisect.bisect_left(self.injections, at - LONGEST_EFFECT, key=lambda one: one.at)
        return self.injections[first:]

    def note(self, at: float, line: str) -> None:
        """Keep a line for whoever reads what happened around a violation."""
        self._lines.append((at, line))
        self._file.write(f"{at:.3f} {line}\n")

    def close(self) -> None:
        self._file.close()

    def enter(self, entry: Entry) -> None:
        """Take in a line of the app's."""
        self._entries[entry.job_id].append(entry)
        if entry.room != "-" and entry.what == "enter":
            self._rooms[entry.room].append(entry)
        self.note(entry.at, f"app    {entry.what} {entry.job_id} pid {entry.pid} {entry.room.strip('-')}")

    def entries(self, job_id: str) -> list[Entry]:
        return self._entries.get(job_id, [])

    def entered(self, room: str) -> list[Entry]:
        """Return the entries of a room's agents."""
        return self._rooms.get(room, [])

    def around(self, at: float, seconds: float = NEAR) -> Iterator[str]:
        """Yield the lines near a moment, in order of time."""
        near = sorted(line for line in self._lines if abs(line[0] - at) <= seconds)
        for when, text in near:
            yield f"{when - at:+9.3f} {text}"

    def between(self, kinds: Iterable[str], begin: float, end: float) -> list[Injection]:
        """Return the injections of some kinds whose time overlaps a span."""
        wanted = frozenset(kinds)
        return [
            one
            for one in self.injections
            if one.kind in wanted and one.at <= end and (one.until if one.until is not None else one.at) >= begin
        ]
