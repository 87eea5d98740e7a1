"""The audit: what clients were told, what sessions wrote before all else, and what the workers report. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Began", "Job", "Killed", "Place", "Told", "faults", "unfinished"]

Place = tuple[str, str]
"""A worker, and the number of its start."""
Job = tuple[str, str]
"""The key of a call, and the id of its session."""

UNKNOWN = (None, 502, 504)
"""Answers that do not say whether the session began. ``None``: the connection was closed without an answer."""


@dataclass(frozen=True)
class Told:
    """What a client was told that asked for a session. Times are those of the test's event loop."""

    key: str
    status: int | None
    body: Any
    worker: str | None
    sent: float
    at: float

    @property
    def is_accepted(self) -> bool:
        return self.status == 201

    @property
    def is_unknown(self) -> bool:
        return self.status in UNKNOWN

    @property
    def id(self) -> str:
        assert self.is_accepted, self
        return str(self.body["id"])

    @property
    def error(self) -> str:
        """Type of the error; empty if the answer is none, or not in the API's form."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return str(error["type"]) if isinstance(error, dict) else ""


@dataclass(frozen=True)
class Began:
    """Line of a session's journal, which its entrypoint writes first."""

    key: str
    id: str
    place: Place


Killed = Mapping[str, float]
"""Time of a worker's last kill, by its name, on the clock of :class:`Told`."""


def unfinished(
    told: Iterable[Told], began: Collection[Began], reported: Mapping[Place, Collection[Job]], killed: Killed
) -> list[str]:
    """Return what is wrong for as long as a record is not complete yet, and for ever only if there is a fault."""
    keys = {one.key for one in began}
    # A session may have died with its worker before it had written its line.
    missing = [one for one in told if one.is_accepted and one.key not in keys and one.at > _last_kill(one, killed)]
    found = [f"{one.key} was accepted, and did not run" for one in missing]
    for place, jobs in reported.items():
        noted = {(one.key, one.id) for one in began if one.place == place}
        found += [f"{place} reports {job}, which never began" for job in sorted(set(jobs) - noted)]
        found += [f"{job} began on {place}, which does not report it" for job in sorted(noted - set(jobs))]
    return found


def faults(
    told: Collection[Told], began: Collection[Began], reported: Mapping[Place, Collection[Job]], killed: Killed
) -> list[str]:
    """Return what is wrong, as texts. ``reported`` has the sessions that each living worker says it has started."""
    found = unfinished(told, began, reported, killed)
    answers: dict[str, list[Told]] = defaultdict(list)
    for one in told:
        answers[one.key].append(one)
    runs = Counter(one.key for one in began)
    for key, count in runs.items():
        if count > 1 and key in answers:
            found.append(f"{key} began {count} times: {[one.place for one in began if one.key == key]}")
    for key, all_told in answers.items():
        found += _faults_of_call(key, all_told, [one for one in began if one.key == key], set(reported))
    return found


def _last_kill(one: Told, killed: Killed) -> float:
    return killed.get(one.worker or "", float("-inf"))


def _faults_of_call(key: str, told: list[Told], began: list[Began], living: set[Place]) -> list[str]:
    found = []
    accepted = [one for one in told if one.is_accepted]
    if len(accepted) > 1:
        found.append(f"{key} was accepted {len(accepted)} times")
    if accepted and began and accepted[0].id not in {one.id for one in began}:
        found.append(f"{key} was accepted as {accepted[0].id}, and began as {began[0].id}")
    if accepted or not began:
        return found
    statuses = [one.status for one in told]
    if not any([one.is_unknown for one in told]):
        found.append(f"{key} was told no ({statuses}), and ran")
    elif any([one.place in living for one in began]):
        found.append(f"{key} was told nothing ({statuses}), and ran on a worker that lives")
    return found
