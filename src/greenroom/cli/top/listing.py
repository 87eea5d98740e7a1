"""Lists that the view shows: all that the pictures of the workers have, or what matches a search. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .picture import Picture
from .watched import Watched

__all__ = ["UNANSWERED", "Found", "JobRef", "Listing", "ref_of"]

_Data = dict[str, Any]

UNANSWERED = "no answer"
"""State of a live session whose worker does not answer, while other workers are shown."""


class JobRef(NamedTuple):
    """Job on one of the workers that the view shows. Two workers can have jobs with the same id."""

    worker: int
    """Number of the worker, in the order of the addresses."""
    id: str


@dataclass(frozen=True, slots=True)
class Found:
    """Answer to a search."""

    words: str
    jobs: dict[JobRef, _Data]
    """Jobs as the API shows them, each with the number of its ``worker``, the oldest first."""
    is_cut: bool
    """True if the workers may know more jobs that match."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Sessions and troubles in the order shown. Each has the number of its ``worker``."""

    live: list[_Data]
    """Sessions that have not ended, the oldest first."""
    ended: list[_Data]
    """Sessions that have ended, the latest first."""
    troubles: list[_Data]

    @classmethod
    def of(cls, watched: Sequence[Watched], found: Found | None) -> Listing:
        """Return the lists of all workers. If a search has found jobs, return only those, and those from earlier."""
        live, ended = _live(watched), _rows(watched, Picture.ended_sessions)
        troubles = sorted(_rows(watched, Picture.troubles), key=lambda one: float(one["at"]), reverse=True)
        if found is not None:
            # The picture knows more of a job than the search, whose answer is some seconds old.
            older = [job for ref, job in found.jobs.items() if _is_older(watched[ref.worker].picture, job)]
            live, ended = _of_refs(live, found), [*_of_refs(ended, found), *older]
            troubles = [one for one in troubles if one["job_id"] and JobRef(one["worker"], one["job_id"]) in found.jobs]
        return cls(live, sorted(ended, key=_end_of, reverse=True), troubles)

    @property
    def refs(self) -> list[JobRef]:
        return [ref_of(session) for session in (*self.live, *self.ended)]

    @property
    def live_refs(self) -> set[JobRef]:
        return {ref_of(session) for session in self.live}


def ref_of(session: _Data) -> JobRef:
    return JobRef(session["worker"], session["id"])


def _end_of(session: _Data) -> float:
    """Return the time of the end. The end of a job that was lost with its worker may be unknown."""
    return float(session["ended"] or session["started"] or session["accepted"] or 0.0)


def _live(watched: Sequence[Watched]) -> list[_Data]:
    live = _rows(watched, Picture.live_sessions)
    if len(watched) == 1:
        return live
    silent = {number for number, worker in enumerate(watched) if worker.loss is not None}
    known = [one | {"state": UNANSWERED} if one["worker"] in silent else one for one in live]
    return sorted(known, key=lambda one: float(one["accepted"] or 0.0))


def _rows(watched: Sequence[Watched], rows_of: Callable[[Picture], Iterable[_Data]]) -> list[_Data]:
    return [{**row, "worker": number} for number, worker in enumerate(watched) for row in rows_of(worker.picture)]


def _is_older(picture: Picture, job: _Data) -> bool:
    return job["state"] == "ended" and job["id"] not in picture.sessions


def _of_refs(sessions: Iterable[_Data], found: Found) -> list[_Data]:
    return [session for session in sessions if ref_of(session) in found.jobs]
