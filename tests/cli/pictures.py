"""A picture of a worker, as its events and answers would make it."""

from __future__ import annotations

from typing import Any

import msgspec

from greenroom import ExitReport, Timings
from greenroom.cli.top.picture import Picture
from greenroom.cli.top.watched import Watched
from greenroom.server.web.schema import JobBrief, JobView, ReportView

__all__ = ["NOW", "board", "exit_report", "job_view", "picture_of", "report", "session", "watched_of"]

NOW = 1_800_000_000.0
STATS = {
    "jobs": 1000,
    "idle": 8,
    "idle_target": 10,
    "warming": 2,
    "waiting": 0,
    "generation": 3,
    "zygote_pid": 77,
    "breaker_cause": None,
}


def process(number: int, state: str, job_id: str | None = None) -> dict[str, Any]:
    known = {"id": f"1-{number}", "pid": 5000 + number, "state": state, "generation": 3}
    return {**known, "job_id": job_id, "since": NOW, "private_mb": 3.5}


def session(job_id: str, ended: float | None = None) -> dict[str, Any]:
    known = {"id": job_id, "source": "http", "launch_type": "warm", "accepted": NOW - 61, "started": NOW - 60}
    return {**known, "ended": ended, "start_ms": 1.5, "pid": 1, "process_id": "x", **end(ended)}


def end(ended: float | None) -> dict[str, Any]:
    return {"outcome": ended and "succeeded", "reason": ended and "completed", "detail": None}


def report(**given: Any) -> dict[str, Any]:
    known = {"job_id": "call", "process_id": "1-1", "pid": 5, "outcome": "failed", "reason": "raised", "detail": "it"}
    return {**known, **given}


def board(running: int = 0, idle: int = 0) -> dict[str, Any]:
    return {
        "app": "agent.py:app",
        "problem": None,
        "stats": dict(STATS),
        "options": {"max_jobs": 2000},
        "processes": [process(n, "running", f"call-{n}") for n in range(running)]
        + [process(running + n, "idle") for n in range(idle)],
        "sessions": [session(f"call-{n}") for n in range(running)] + [session("over", NOW - 5)],
        "turned_down": [{"at": NOW - 1, "reason": "full"}, {"at": NOW - 100, "reason": "memory"}],
        "reports": [{**report(), "at": NOW - 9}],
        "incidents": [],
        "start_ms": [["warm", 1.0], ["cold", 30.0]],
    }


def picture_of(running: int = 0, idle: int = 0) -> Picture:
    picture = Picture()
    picture.apply("board", board(running, idle))
    return picture


def watched_of(picture: Picture, name: str = "") -> Watched:
    watched = Watched(name)
    watched.picture = picture
    return watched


def job_view(job_id: str = "call", report: ExitReport | None = None, **known: Any) -> dict[str, Any]:
    """Return a job as the API shows it: a live one, unless there is a report."""
    if report is None:
        shown = {"pid": 7, "launch_type": "warm", "state": "running", "start_ms": 1.5, "labels": {}}
        view = JobView(**({"id": job_id} | shown | known))
    else:
        brief = msgspec.structs.asdict(JobBrief.of_ended(report))
        view = JobView(**(brief | {"id": job_id} | known), report=ReportView.of(report))
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(view))
    return plain


def exit_report(job_id: str = "call", **given: Any) -> ExitReport:
    known: dict[str, Any] = {"outcome": "killed", "reason": "stalled", "detail": "the loop stood still"} | given
    return ExitReport(timings=Timings(NOW - 9, NOW - 8, NOW - 7, NOW), job_id=job_id, **known)
