"""Printed replay: one line for each decision, and the place where this version decides differently."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import typer

from ..command_exit_codes import ExitCode
from ..pool.core import vocabulary as v
from ..pool.core.records import Job
from ..pool.events import TurnedDown
from ..pool.flight_recorder.explain import Decision, decisions
from ..pool.flight_recorder.reader import Line
from ..pool.flight_recorder.recorder import core_digest
from ..pool.flight_recorder.replay import Difference, Moment, Replay
from .printing import Failure, echo
from .text import one_line

__all__ = ["Replaying"]

_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d(?:\.\d+)?))?")
_MOST_SHOWN = 20
"""Most effects that are shown for each side of a difference."""


class Replaying:
    """Replay of a recording that prints each decision."""

    def __init__(self, lines: Iterable[Line], *, until: str | None, job: str | None, as_json: bool) -> None:
        self._replay = Replay(lines) if until is None else Replay(lines, _Until(until).is_before)
        self._of_job = None if job is None else _OfJob(job)
        self._as_json = as_json
        self._last: Moment | None = None

    def run(self) -> int:
        """Replay and print the recording. Return the exit code. Raises :class:`BadRow` for an invalid recording."""
        for moment in self._replay.moments():
            if self._last is None:
                self._begin(moment)
            self._last = moment
            for decision in decisions(moment):
                if self._of_job is None or self._of_job.concerns(decision):
                    self._show(decision)
            if self._of_job is not None and self._of_job.ends_with(moment):
                return self._end(stopped=True)
        return self._end(stopped=self._replay.has_ended)

    def _begin(self, moment: Moment) -> None:
        header = self._replay.header
        by, digest = one_line(str(header.get("greenroom"))), one_line(str(header.get("core")))
        own = core_digest()
        same = "the same as here" if digest == own else f"the core here is {own}, and may decide differently"
        date = _utc(moment.at).strftime("%Y-%m-%d")
        echo(f"recorded by Greenroom {by}, core {digest}: {same}. Times are UTC, from {date} on.", err=True)

    def _show(self, decision: Decision) -> None:
        if self._as_json:
            _echo_json(decision._asdict())
            return
        moved = f"{decision.before} → {decision.after}: " if decision.after != decision.before else ""
        done = f" [{'; '.join(decision.done)}]" if decision.done else ""
        echo(one_line(f"{_clock(decision.at)}  {decision.who}: {moved}{decision.why}{done}"))

    def _end(self, *, stopped: bool) -> int:
        replay, difference = self._replay, self._replay.difference
        for missing in replay.missing:
            echo(f"not replayed: {missing}", err=True)
        if difference is not None:
            self._show_difference(difference)
            return ExitCode.NEGATIVE
        if self._of_job is not None and not self._of_job.was_seen:
            raise Failure(f"job {one_line(self._of_job.job_id)} is not in the recording")
        text = f"{replay.events} events were replayed, and all decisions are as recorded"
        if self._last is None:
            text = "nothing was replayed: the recording has no events, or TIME is before its first event"
        elif stopped:
            text = f"stopped at {_clock(self._last.at)}: {text}. The pool then had {_state(self._last)}"
        if self._as_json:
            _echo_json({"events": replay.events, "differs": False, "stopped": stopped})
        echo(text, err=True)
        return ExitCode.OK

    def _show_difference(self, difference: Difference) -> None:
        if self._as_json:
            _echo_json({"events": self._replay.events, "differs": True, "difference": difference._asdict()})
            return
        echo(f"line {difference.place} of the recording: this version decides differently")
        echo(one_line(f"  {_clock(difference.at)}, {difference.about[:500]}"))
        for name, effects in (("recorded", difference.recorded), ("now", difference.now)):
            echo(f"  {name}:" + ("" if effects else " nothing"))
            for effect in effects[:_MOST_SHOWN]:
                echo(one_line(f"    {_effect_text(effect)}"[:500]))
            if len(effects) > _MOST_SHOWN:
                echo(f"    and {len(effects) - _MOST_SHOWN} more")


class _Until:
    """Time at which a replay stops. A time without a date is on the day on which the recording begins."""

    def __init__(self, text: str) -> None:
        self._clock = _CLOCK.fullmatch(text)
        self._at: float | None = None
        if self._clock is not None:
            return
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise typer.BadParameter(
                f"--until is {text!r}; it must be a time such as 12:03:07.5 or 2026-11-29T12:03:07.5, in UTC"
            ) from None
        self._at = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()

    def is_before(self, at: float) -> bool:
        if self._at is None:
            assert self._clock is not None
            hours, minutes, seconds = self._clock.groups()
            since = timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds or 0))
            self._at = (_utc(at).replace(hour=0, minute=0, second=0, microsecond=0) + since).timestamp()
        return self._at < at


class _OfJob:
    """Filter for the decisions about one job, and about its process."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.was_seen = False
        self._processes: set[str] = set()

    def concerns(self, decision: Decision) -> bool:
        if decision.job_id == self.job_id:
            self.was_seen = True
            if decision.process_id is not None:
                self._processes.add(decision.process_id)
            return True
        if decision.job_id is not None and decision.process_id is not None:
            self._processes.discard(decision.process_id)  # the process was released, and has another job now
        return decision.process_id in self._processes

    def ends_with(self, moment: Moment) -> bool:
        """Return true if the job has ended after a moment."""
        for step in moment.steps:
            if isinstance(step.record, Job) and step.record.id == self.job_id and step.record.state.public == "ended":
                return True
        return any(
            (isinstance(effect, TurnedDown) and effect.job_id == self.job_id)
            or (isinstance(effect, v.Refused) and getattr(moment.happening, "job_id", None) == self.job_id)
            for effect in moment.effects
        )


def _state(moment: Moment) -> str:
    """Return the numbers of processes and jobs in each state after a moment, as text."""
    processes = Counter(one.state.name for one in moment.pool.processes.values())
    jobs = Counter(one.state.name for one in moment.pool.job_queue.jobs.values())
    parts = [f"{kind} {_counted(counts)}" for kind, counts in (("processes", processes), ("jobs", jobs)) if counts]
    return " and ".join(parts) or "neither processes nor jobs"


def _counted(counts: Counter[str]) -> str:
    return "(" + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) + ")"


def _effect_text(effect: object) -> str:
    if not isinstance(effect, dict) or "effect" not in effect:
        return str(effect)
    fields = ", ".join(f"{name}={value!r}" for name, value in effect.items() if name != "effect")
    return f"{effect['effect']}({fields})"


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(min(max(at, 0.0), 2.5e11), UTC)


def _clock(at: float) -> str:
    return _utc(at).strftime("%H:%M:%S.%f")[:-2]


def _echo_json(value: object) -> None:
    import msgspec  # imported late: only --json needs it

    typer.echo(msgspec.json.encode(value).decode())
