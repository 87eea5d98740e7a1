"""Table of a question's life. A question goes to the resident process of a generation.

The pool asks the app's request hook about a job, and integrations ask questions of their own. A question waits until
the resident process is there, within the time of the question. If this process ends, its questions fail. The setting
``request_failure`` then decides about a job, and an integration gets no answer.
"""

from __future__ import annotations

from ...app_facts import REQUEST
from ...clean_text import clean, cut_end
from ...errors import LaunchError
from . import resident
from .exit_verdict import Decision
from .process_commands import end
from .records import Ask, Generation, Job, Pool, Process
from .state_machine import Machine, Row, register, step
from .states import AskEvent as E
from .states import AskState as S
from .states import Bound, GenerationState, JobEvent, JobQueueState, JobState, ProcessEvent, ProcessState
from .vocabulary import WARNING, Answered, AppAnswered, AskResident, Log, WithdrawAsk
from .vocabulary import Ask as AskProcess

__all__ = [
    "TABLE",
    "UNBOUNDED",
    "answered",
    "ask",
    "ask_resident",
    "drop",
    "give_up",
    "is_needed",
    "lost",
    "send_pending",
]

MOST_REASON = 2064
"""Limit of characters in the app's reason for a rejection. A faulty child may send more, and the rest is cut off."""


def ask(pool: Pool, job: Job) -> None:
    """Ask the app's request hook about a job."""
    assert pool.serving is not None
    timeout = pool.options.request_timeout
    job.ask = Ask(number=job.number, topic=REQUEST, generation=pool.serving, timeout=timeout, job=job)
    _put(pool, job.ask)


def ask_resident(pool: Pool, message: AskResident) -> None:
    """Put a question of an integration. If no process will answer, fail the question at once."""
    problem = _reason_not_to_ask(pool, message.topic)
    if problem is not None or pool.serving is None:
        pool.emit(AppAnswered(message.number, False, problem or ""))
        return
    _put(pool, Ask(message.number, message.topic, pool.serving, message.timeout, body=message.body))


def _reason_not_to_ask(pool: Pool, topic: str) -> str | None:
    if pool.job_queue.state is not JobQueueState.OPEN:
        return "the pool takes no more jobs"
    if pool.serving is None or not resident.takes(pool.serving.facts, topic):
        return f"the app does not answer {topic!r}"
    return None


def _put(pool: Pool, question: Ask) -> None:
    serving = question.generation
    serving.asks.append(question)
    pool.deadlines.set(question, pool.now, question.timeout)
    process = serving.resident
    if process is not None and process.state is ProcessState.RESIDENT:
        step(pool, question, E.SEND, process)
    pool.is_unbalanced = True  # the resident process may be missing


def send_pending(pool: Pool, process: Process) -> None:
    """Send the waiting questions to the new resident process."""
    for question in list(process.generation.asks):
        if question.state is S.PENDING:
            step(pool, question, E.SEND, process)


def is_needed(pool: Pool, generation: Generation) -> bool:
    """Return true if there is a question, or a reservation about which the app may still be asked."""
    held = (JobState.HELD, JobState.UNHELD)
    return bool(generation.asks) or any(job.ask is None and job.state in held for job in pool.job_queue.jobs.values())


def answered(pool: Pool, process: Process, message: Answered) -> None:
    """Pass on an answer. Ignore an answer that comes too late."""
    question = next((one for one in process.generation.asks if one.number == message.number), None)
    if question is not None:
        process.generation.resident_breaker.succeeded()
        step(pool, question, E.ANSWERED, message)


def drop(pool: Pool, job: Job) -> None:
    """Drop the question of a reservation that ends without a launch."""
    if job.ask is not None and job.ask.state is not S.DONE:
        step(pool, job.ask, E.DROPPED)


def lost(pool: Pool, process: Process) -> None:
    """Fail the questions of a resident process that ends."""
    generation = process.generation
    if generation.resident is not process:
        return
    generation.resident = None
    resident.note_loss(pool, process)
    pool.is_unbalanced = True
    for question in list(generation.asks):
        if question.state is S.SENT:
            question.was_lost = True
            step(pool, question, E.LOST, f"{_asked(question)} has no process: {process.fate}")


def give_up(pool: Pool, generation: Generation, cause: str) -> None:
    """Fail the questions of integrations. Questions about jobs end with their reservations."""
    for question in [one for one in generation.asks if one.job is None]:
        step(pool, question, E.LOST, cause)


def _asked(question: Ask) -> str:
    return "the app's request function" if question.job is not None else "it"


def _send(pool: Pool, question: Ask, process: Process) -> None:
    job = question.job
    about = (job.id, job.source, job.metadata) if job is not None else ("", "", question.body)
    pool.emit(AskProcess(process.id, question.number, question.topic, *about))
    resident.put_to_work(pool, process)


def _pass_on(pool: Pool, question: Ask, message: Answered) -> None:
    _finish(pool, question)
    reason = cut_end(clean(message.reason), MOST_REASON)
    accepted, job = message.accepted, question.job
    pool.emit(AppAnswered(question.number, accepted, reason, message.final, message.body))
    if job is None:
        return
    if accepted:
        step(pool, job, JobEvent.ANSWERED)
    else:
        _reject(pool, job, f"the app rejected it: {reason}")


def _take_back(pool: Pool, question: Ask, data: object) -> None:
    process = question.generation.resident
    assert process is not None
    pool.emit(WithdrawAsk(process.id, question.number))


def _fail(pool: Pool, question: Ask, cause: str) -> None:
    """Finish a question without an answer. About a job, the setting ``request_failure`` decides."""
    _finish(pool, question)
    job = question.job
    accepted = job is not None and pool.options.request_failure == "accept"
    pool.emit(AppAnswered(question.number, accepted, cause, was_lost=question.was_lost))
    if job is None:
        return
    if accepted:
        text = f"job {job.id} is accepted without the app's answer: {cause}"
        about: dict[str, object] = {"job_id": job.id, "labels": job.labels or None, "cause": cause}
        pool.emit(Log(WARNING, text, {"event": "accepted_unanswered", **about}))
        step(pool, job, JobEvent.ANSWERED)
    else:
        _reject(pool, job, f"the app rejected it: {cause}")


def _miss(pool: Pool, question: Ask, data: object) -> None:
    if question.job is not None:
        time = f"request_timeout ({question.timeout:g} s)"
    else:
        time = f"{question.timeout:g} s"
    _fail(pool, question, f"{_asked(question)} did not answer within {time}")


def _miss_pending(pool: Pool, question: Ask, data: object) -> None:
    if question.job is not None:
        _miss(pool, question, data)
    else:
        _fail(pool, question, f"no process was ready to answer within {question.timeout:g} s")


def _reject(pool: Pool, job: Job, cause: str) -> None:
    step(pool, job, JobEvent.RELEASE, LaunchError(f"job {job.id} did not start: {cause}"))


def _finish(pool: Pool, question: Ask, data: object = None) -> None:
    generation = question.generation
    generation.asks.remove(question)
    pool.is_unbalanced = True  # in a drain, the resident process may not be needed any more
    if generation.state is GenerationState.RETIRED and not generation.asks and generation.resident is not None:
        end(pool, generation.resident, ProcessEvent.STOP, Decision("drained", "its code was reloaded"))


TABLE: dict[S, dict[E, Row]] = {
    S.PENDING: {
        E.SEND: Row(S.SENT, Bound.KEEP, (_send,)),
        E.LOST: Row(S.DONE, Bound.NONE, (_fail,)),
        E.OVERDUE: Row(S.DONE, Bound.NONE, (_miss_pending,)),
        E.DROPPED: Row(S.DONE, Bound.NONE, (_finish,)),
    },
    S.SENT: {
        E.ANSWERED: Row(S.DONE, Bound.NONE, (_pass_on,)),
        E.LOST: Row(S.DONE, Bound.NONE, (_fail,)),
        E.OVERDUE: Row(S.DONE, Bound.NONE, (_take_back, _miss)),
        E.DROPPED: Row(S.DONE, Bound.NONE, (_take_back, _finish)),
    },
    S.DONE: {},
}

UNBOUNDED: dict[S, str] = {
    S.PENDING: "its deadline is set when it is asked",
    S.SENT: "its deadline is set when it is asked",
    S.DONE: "its record is dropped",
}
"""Reasons why no row sets a deadline. :func:`ask` and :func:`ask_resident` set the only one."""


def _seconds(pool: Pool, question: Ask, bound: Bound) -> float | None:
    raise AssertionError(f"no row of a question sets {bound}")


def _changed(pool: Pool, question: Ask, before: S) -> None:
    pass


machine = register(Ask, Machine(TABLE, _seconds, _changed, lambda question: f"question {question.number}"))
