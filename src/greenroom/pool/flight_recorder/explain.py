"""Decisions of a replay: for each, the record, its states before and after, the reason and the effects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...errors import NoCapacity
from .. import events
from ..core import generation
from ..core import vocabulary as v
from ..core.records import Ask, Generation, Job, Launcher, Process
from .phrases import EFFECTS, REASONS, SPECIAL
from .replay import Moment, Step

__all__ = ["Decision", "decisions"]


class Decision(NamedTuple):
    """Decision of the core."""

    at: float
    """Time in seconds since the epoch."""
    who: str
    before: str | None
    after: str | None
    """Names of the record's states before and after its step. ``None`` for a decision that is not about a step."""
    why: str
    done: tuple[str, ...]
    job_id: str | None
    process_id: str | None


def decisions(moment: Moment) -> Iterator[Decision]:
    """Yield the decisions of one moment, in their order. A moment without any change has none."""
    of_steps: set[int] = set()
    for step in moment.steps:
        of_steps.update(map(id, step.effects))
        done = tuple(phrase for effect in step.effects if (phrase := EFFECTS.get(type(effect).__name__)))
        if step.after is not step.before or done or step.is_breach:
            yield _of_step(moment, step, done)
        yield from _standing(moment, step.effects)
    yield from _standing(moment, [effect for effect in moment.effects if id(effect) not in of_steps])


def _of_step(moment: Moment, step: Step, done: tuple[str, ...]) -> Decision:
    why = SPECIAL.get((step.before, step.event)) or REASONS[step.event]
    decision = getattr(step.record, "decision", None)
    if decision is not None and decision is not step.was_decided:
        why = f"{decision.detail} ({decision.reason})"
    elif isinstance(step.record, Job) and step.record.cause and step.after.public == "ended":
        why = f"{why}: {step.record.cause}"
    if step.is_breach:
        why = f"invalid event in this state: {why}"
    who, job_id, process_id = _named(step.record)
    return Decision(moment.at, who, step.before.name, step.after.name, why, done, job_id or step.job_id, process_id)


def _named(record: object) -> tuple[str, str | None, str | None]:
    """Return the name of a record, the id of its job, and the id of its process."""
    match record:
        case Process():
            return f"process {record.id}", record.job.id if record.job is not None else None, record.id
        case Job():
            return f"job {record.id}", record.id, record.process.id if record.process is not None else None
        case Ask():
            if record.job is None:
                return f"question {record.number}", None, None
            return f"question about job {record.job.id}", record.job.id, None
        case Launcher():
            return f"zygote {record.number}", None, None
        case Generation():
            return f"generation {record.number}", None, None
    return type(record).__name__, None, None


def _standing(moment: Moment, effects: list[v.Effect]) -> Iterator[Decision]:
    """Yield the decisions that are in the effects alone, without a change of state."""
    for effect in effects:
        found = _sentence(moment, effect)
        if found is not None:
            who, why, job_id, process_id = found
            yield Decision(moment.at, who, None, None, why, (), job_id, process_id)


def _sentence(moment: Moment, effect: v.Effect) -> tuple[str, str, str | None, str | None] | None:
    match effect:
        case v.Fork(process=process, launcher=launcher):
            return f"process {process}", f"it is requested from zygote {launcher}: {_need(moment)}", None, process
        case events.ProcessEnded(report):
            text = f"its report: {report.outcome}, {report.reason}: {report.detail}"
            return f"process {report.process_id}", text, report.job_id, report.process_id
        case events.TurnedDown(job_id, _, reason, detail):
            return f"job {job_id}", f"rejected ({reason}): {detail}", job_id, None
        case v.Refused(error=error) if not isinstance(error, NoCapacity):  # TurnedDown reports NoCapacity
            of_job = getattr(moment.happening, "job_id", None)
            return f"job {of_job}", f"refused: {error}", of_job, None
        case events.ClaimFailed(job_id, process_id, _, _, cause, retried):
            then = "the job gets another one" if retried else "the job is not tried again"
            return f"job {job_id}", f"its process is lost ({cause}); {then}", job_id, process_id
        case v.HasReloaded(number=number, error=error):
            return "pool", f"reload {number} {'is done' if error is None else f'failed: {error}'}", None, None
        case v.Opened(error=error) if error is not None:
            return "pool", f"it could not be started: {error}", None, None
        case events.Draining(timeout):
            return "pool", f"it accepts no more jobs; the accepted jobs have {timeout:g} s", None, None
        case events.Resized(num_idle, _):
            return "pool", f"num_idle_processes is {num_idle} from now on", None, None
        case events.BreakerChanged(is_open, cause):
            text = f"jobs are rejected from now on: {cause}" if is_open else "jobs are accepted again"
            return "pool", text, None, None
        case v.Log(level=level, text=text) if level > v.INFO:
            return "pool", text, None, getattr(moment.happening, "process", None)
        case v.Closed():
            return "pool", "it is closed", None, None
    return None


def _need(moment: Moment) -> str:
    """Return the reason for a new process, from the state of the pool after the event."""
    pool = moment.pool
    serving = pool.serving
    if pool.trial is not None and pool.trial.to_warm:
        return "new code must be proven"
    if serving is None:
        return "the pool opens"
    target, waiting = generation.idle_target(pool), len(pool.job_queue.waiting)
    waits = f", and {waiting} {'job waits' if waiting == 1 else 'jobs wait'}" if waiting else ""
    return f"the idle target is {target}, {len(serving.idle)} are idle{waits}"
