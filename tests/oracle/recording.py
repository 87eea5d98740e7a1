"""Recordings of a pool's events, without what differs from run to run; and how two recordings differ.

A record is flat: the name of a part, and its value. Each part belongs to one entity (a job, the pool, all processes
without their order), since the order between entities is a race.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from typing import Any

from greenroom import ExitReport, GreenroomError
from greenroom.pool import events as e

__all__ = ["LIVES", "Record", "Recorder", "differences", "merge", "normalised", "text_of"]

Record = dict[str, Any]

LIVES = "processes"
"""The part with the lives of processes that ended without a job: each life, and how many processes lived it."""

_RESIDENT = "resident"
"""The public state of a process that serves no jobs; its life is not recorded."""


def normalised(text: str) -> str:
    """Return the first line of a text without paths and numbers. Exit codes and signals have fields of their own.

    The lines after it are a traceback, which differs between versions of Python.
    """
    text = text.partition("\n")[0]
    text = re.sub(r"(?<![\w<])/[\w./-]+", "<path>", text)
    return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "N", text)


class Recorder:
    """A subscriber of a pool. Scenarios give their jobs names as ids; a process has none."""

    def __init__(self, *, lives: bool = True, generations: bool = False) -> None:
        self._lives = lives
        self._generations = generations
        self._states: dict[str, list[str]] = {}
        self._reports: dict[str, ExitReport] = {}
        self._given: dict[tuple[str, str], None] = {}
        """Jobs and their processes, in the order in which they met."""
        self._jobs: dict[str, list[str]] = {}
        self._job_reports: dict[str, ExitReport] = {}
        self._pool: dict[str, list[str]] = {}
        self._told: dict[str, str] = {}

    def __call__(self, event: e.Event) -> None:
        match event:
            case e.ProcessChanged():
                states = self._states.setdefault(event.process_id, [event.before] if event.before else [])
                states.append(event.after)
                if event.job_id is not None:
                    self._given.setdefault((event.job_id, event.process_id))
            case e.ProcessEnded(report=report):
                assert report.process_id is not None
                self._reports[report.process_id] = report
            case e.JobEnded(report=report):
                assert report.job_id is not None
                self._job(report.job_id, f"ended: {report.outcome} {report.reason}")
                self._job_reports[report.job_id] = report
            case e.JobAccepted():
                self._job(event.job_id, f"accepted {event.launch_type}")
            case e.JobStarted():
                self._job(event.job_id, f"started {event.launch_type}")
            case e.ClaimFailed():
                then = "retried" if event.retried else "given up"
                self._job(event.job_id, f"claim failed, {then}: {normalised(event.cause)}")
            case e.TurnedDown():
                self._job(event.job_id, f"turned down, {event.reason}: {normalised(event.detail)}")
            case e.Released():
                how = "expired" if event.expired else "released"
                kept = "with" if event.process_id else "without"
                self._job(event.job_id, f"{how} {kept} a process: {normalised(event.detail)}")
            case e.Stalled() if event.job_id:
                self._job(event.job_id, f"stalled: {event.kind}")
            case e.ZygoteStarted():
                self._note("zygote", "started" + self._of(event.generation))
            case e.ZygoteLost():
                self._note("zygote", f"lost{self._of(event.generation)}: {normalised(event.cause)}")
            case e.Reloaded():
                self._note("reload", "reloaded" + self._of(event.generation))
            case e.ReloadFailed():
                self._note("reload", f"failed: {normalised(event.cause)}")
            case e.BreakerChanged():
                opened = f"opened: {normalised(event.cause or '')}" if event.is_open else "closed"
                self._note("breaker", opened)
            case e.PrewarmsBounded():
                self._note("prewarms", f"{event.allowed} of {event.most} at once")
            case e.Resized():
                self._note("size", f"{event.num_idle_processes} to {event.max_idle_processes}")
            case e.Draining():
                self._note("drain", "begun")

    def tell(self, name: str, what: object) -> None:
        """Record what a caller was told: a value, or an error with its reason."""
        if isinstance(what, BaseException):
            reason = f" {vars(what)['reason']}" if "reason" in vars(what) else ""
            message = normalised(str(what)) if isinstance(what, GreenroomError) else ""
            what = f"{type(what).__name__}{reason}: {message}"
        self._told[name] = what if isinstance(what, str) else repr(what)

    def record(self) -> Record:
        """Return what was recorded. To be called when the pool is closed."""
        found: Record = {}
        lives: Counter[str] = Counter()
        for process_id, states in self._states.items():
            report = self._reports.get(process_id)
            if _RESIDENT not in states and (report is None or report.job_id is None):
                life = " > ".join(states) + " | " + (self._line(report) if report else "no report")
                lives[_told(life)] += 1
        for job_id in sorted(self._jobs):
            found[f"job {job_id}: events"] = self._jobs[job_id]
            owned = [self._life(process_id, job_id) for job, process_id in self._given if job == job_id]
            if self._lives and any(owned):
                found[f"job {job_id}: processes"] = [life for life in owned if life is not None]
            if job_id in self._job_reports:
                found[f"job {job_id}: report"] = self._fields(self._job_reports[job_id])
        if self._lives:
            found[LIVES] = dict(sorted(lives.items()))
        found |= {f"pool: {kind}": notes for kind, notes in sorted(self._pool.items())}
        found |= {f"caller of {name}": told for name, told in sorted(self._told.items())}
        return found

    def _life(self, process_id: str, job_id: str) -> str | None:
        """Return the life of a process that ended with this job."""
        report = self._reports.get(process_id)
        if report is None or report.job_id != job_id:
            return None
        return _told(" > ".join(self._states[process_id])) + self._of(report.generation)

    def _job(self, job_id: str, what: str) -> None:
        self._jobs.setdefault(job_id, []).append(what)

    def _note(self, kind: str, what: str) -> None:
        self._pool.setdefault(kind, []).append(what)

    def _of(self, generation: int | None) -> str:
        return f" (generation {generation})" if self._generations else ""

    def _fields(self, report: ExitReport) -> Record:
        times = report.timings
        fields: Record = {
            "outcome": report.outcome,
            "reason": report.reason,
            "detail": normalised(report.detail),
            "launch_type": report.launch_type,
            "exit_code": report.exit_code,
            "signal": report.signal,
            "timings": [name for name in times.__slots__ if getattr(times, name) is not None],
            "descendants_killed": report.descendants_killed or None,
            "has": [name for name in ("process_id", "pid", "stack_dump") if getattr(report, name) is not None],
        }
        if self._generations:
            fields["generation"] = report.generation
        if report.error is not None:
            fields["error"] = normalised(str(report.error))
        if report.result_payload is not None:
            fields["result"] = report.result
        return {name: value for name, value in fields.items() if value is not None}

    def _line(self, report: ExitReport) -> str:
        fields = self._fields(report)
        head = f"{fields.pop('outcome')} {fields.pop('reason')}: {fields.pop('detail')}"
        return f"{head} | {json.dumps(fields)}"


def merge(runs: list[Record]) -> tuple[Record, Record]:
    """Part what is equal in all runs from what races, of which each value that was seen is kept."""
    kept: Record = {}
    races: Record = {}
    for part in dict.fromkeys(part for run in runs for part in run):
        values = [run.get(part) for run in runs]
        if all(value == values[0] for value in values):
            kept[part] = values[0]
        elif part == LIVES:
            kept[part] = _common_lives(values)
            races[part] = _distinct([dict(Counter(value) - Counter(kept[part])) for value in values])
        elif all(isinstance(value, dict) for value in values):
            names = dict.fromkeys(name for value in values for name in value)
            equal = {name: values[0].get(name) for name in names if len(_distinct([v.get(name) for v in values])) == 1}
            kept[part] = equal
            races |= {
                f"{part}: {name}": _distinct([v.get(name) for v in values]) for name in names if name not in equal
            }
        else:
            races[part] = _distinct(values)
    return kept, races


def differences(kept: Record, races: Record, run: Record) -> list[str]:
    """Compare a run with what was recorded. Returns a text for each part that differs; what races is left out."""
    found = []
    for part in dict.fromkeys([*kept, *run]):
        if part in races and part != LIVES:
            continue
        before, now = kept.get(part), run.get(part)
        if part == LIVES and part in races:
            now = _common_lives([before, now])
        elif isinstance(before, dict) and isinstance(now, dict):
            racing = {name for name in [*before, *now] if f"{part}: {name}" in races}
            now = {name: value for name, value in now.items() if name not in racing}
        if before != now:
            found.append(_difference(part, before, now))
    return found


def text_of(recording: Record) -> str:
    """Return a recording as JSON: a line for each part or, if that is long, for each of its items."""
    return _json(recording, "") + "\n"


def _json(value: Any, indent: str) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if (len(indent) + len(line) <= 110 and len(indent) > 1) or not isinstance(value, (dict, list)) or not value:
        return line
    inner = indent + " "
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _json(item, inner) for item in value) + f"\n{indent}]"
    items = [f"{inner}{json.dumps(name, ensure_ascii=False)}: {_json(item, inner)}" for name, item in value.items()]
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


def _common_lives(values: list[Any]) -> dict[str, int]:
    common = Counter(values[0] or {})
    for value in values[1:]:
        common &= Counter(value or {})
    return dict(sorted(common.items()))


def _distinct(values: list[Any]) -> list[Any]:
    seen: dict[str, Any] = {}
    for value in values:
        seen.setdefault(json.dumps(value, sort_keys=True), value)
    return [seen[key] for key in sorted(seen)]


def _difference(part: str, before: Any, now: Any) -> str:
    lines = difflib.unified_diff(_lines(before), _lines(now), "recorded", "this run", lineterm="", n=2)
    return f"--- {part}\n" + "\n".join(list(lines)[2:])


def _lines(value: Any) -> list[str]:
    if value is None:
        return ["(nothing)"]
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True).splitlines()


def _told(life: str) -> str:
    """Leave out the states that a process's last words tell, if its death is known before they are read.

    Its zygote reports a death, and the process its end, on two channels: which is read first is a matter of chance.
    """
    life = re.sub(r"claimed(?: > running)?(?: > draining)? > exited", "claimed > … > exited", life)
    life = re.sub(r"forked(?: > warming)? > exited", "forked > … > exited", life)
    life = re.sub(r"(?<=, while it was )forked(?= \|)", "warming", life)
    return re.sub(r"forked > warming > killing > (exited > reaped \| failed prewarm_failed)", r"forked > … > \1", life)
