"""Mutations of the core, each of which the simulator must find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from greenroom.pool.core import (
    accounts,
    core,
    evidence,
    exit_verdict,
    generation,
    job,
    job_queue,
    launcher,
    process,
    process_actions,
    process_messages,
    questions,
    records,
    resident,
)
from greenroom.pool.core import vocabulary as v
from greenroom.pool.core.deadlines import Deadlines
from greenroom.pool.core.state_machine import Row
from greenroom.pool.core.states import (
    AskEvent,
    AskState,
    Bound,
    GenerationEvent,
    GenerationState,
    JobEvent,
    JobQueueState,
    JobState,
    LauncherEvent,
    LauncherState,
    ProcessEvent,
    ProcessState,
)

__all__ = ["EQUIVALENT", "MUTATIONS", "mutated"]

Undo = Callable[[], None]
P, PE, J, JE = ProcessState, ProcessEvent, JobState, JobEvent
L, LE, G, GE = LauncherState, LauncherEvent, GenerationState, GenerationEvent


def _row(table: Any, state: Any, event: Any, **changes: Any) -> Callable[[], Undo]:
    """Return a mutation of one row."""

    def apply() -> Undo:
        row = table[state][event]
        table[state][event] = row._replace(**changes)
        return lambda: table[state].__setitem__(event, row)

    return apply


def _without(table: Any, state: Any, event: Any, *names: str) -> Callable[[], Undo]:
    """Return a mutation by which a row does not do something."""
    row: Row = table[state][event]
    do = tuple(action for action in row.do if action.__name__ not in names)
    assert len(do) < len(row.do), (state, event, names)
    return _row(table, state, event, do=do)


def _attribute(owner: Any, name: str, value: Any) -> Callable[[], Undo]:
    """Return a mutation of a constant or function."""

    def apply() -> Undo:
        before = getattr(owner, name)
        setattr(owner, name, value(before) if callable(before) else value)
        return lambda: setattr(owner, name, before)

    return apply


def _nothing(before: Any) -> Any:
    return lambda *arguments, **more: None


def _handler(event: type, act: Callable[[Any], Any]) -> Callable[[], Undo]:
    """Return a mutation of what the core does with an event."""

    def apply() -> Undo:
        before = core._HANDLERS[event]
        core._HANDLERS[event] = act(before)
        return lambda: core._HANDLERS.__setitem__(event, before)

    return apply


def _words_first(before: Any) -> Any:
    """Take last words for messages of a process that lives."""

    def handle(pool: Any, event: Any) -> None:
        for word in event.last_words:
            core._HANDLERS[type(word)](pool, word)
        before(pool, v.Died(event.process))

    return handle


def _words_lost(before: Any) -> Any:
    return lambda pool, event: before(pool, v.Died(event.process))


def _last_first(before: Any) -> Any:
    def put_back(pool: Any, record: Any) -> None:
        pool.job_queue.waiting.append(record)
        pool.is_unbalanced = True

    return put_back


def _newest(before: Any) -> Any:
    def serve(pool: Any) -> None:
        waiting = pool.job_queue.waiting
        while waiting and (found := job_queue.candidate(pool)) is not None:
            taken = waiting.pop()
            job_queue.step(pool, taken, JE.TAKE if taken.state is J.WAITING else JE.HOLD, found)

    return serve


def _one_more(before: Any) -> Any:
    def problem(pool: Any) -> Any:
        found = before(pool)
        return None if found == "full" and len(pool.job_queue.jobs) == pool.options.max_jobs else found

    return problem


def _one_less(before: Any) -> Any:
    def problem(pool: Any) -> Any:
        return before(pool) or ("full" if len(pool.job_queue.jobs) >= pool.options.max_jobs - 1 else None)

    return problem


def _proof_of_none(before: Any) -> Any:
    """Take new code for proven where no idle processes are wanted."""

    def prove(pool: Any, record: Any, data: Any) -> None:
        if generation.idle_target(pool) > 0:
            before(pool, record, data)
        else:
            generation.step(pool, record, GE.PROVEN)

    return prove


def _in_row(table: Any, state: Any, event: Any, name: str, change: Callable[[Any], Any]) -> Callable[[], Undo]:
    """Return a mutation of one action of a row."""
    row: Row = table[state][event]
    assert any(action.__name__ == name for action in row.do), (state, event, name)
    return _row(
        table, state, event, do=tuple(change(action) if action.__name__ == name else action for action in row.do)
    )


def _any_generation(before: Any) -> Any:
    def candidate(pool: Any) -> Any:
        found = before(pool)
        trial = pool.trial
        return found or (next(iter(trial.idle.values()), None) if trial is not None else None)

    return candidate


def _overwriting(before: Any) -> Any:
    """Let the last decision be the cause."""

    def end(pool: Any, record: Any, event: Any, decision: Any) -> None:
        if record.decision is not None:
            record.decision = decision
        before(pool, record, event, decision)

    return end


def _obeyed(before: Any) -> Any:
    return lambda evidence: evidence.decision is not None


def _shed_idle_only(before: Any) -> Any:
    def shed(pool: Any) -> None:
        serving = pool.serving
        if pool.job_queue.state is JobQueueState.DRAINING and serving is not None and not pool.job_queue.waiting:
            for one in list(serving.idle.values()):
                core._stop(pool, one, core.Decision("drained", "the pool is draining"))

    return shed


def _more(amount: float) -> Callable[[Any], Any]:
    return lambda before: lambda *arguments, **more: before(*arguments, **more) + amount


def _count_reserved(before: Any) -> Any:
    def hold(pool: Any, record: Any, found: Any) -> None:
        before(pool, record, found)
        record.attempts += 1

    return hold


def _finish_again(before: Any) -> Any:
    def file(pool: Any, record: Any) -> None:
        report = process_actions.process_report(record)
        before(pool, record)
        pool.emit(process_actions.ProcessEnded(report, at=pool.wall))

    return file


def _no_void(before: Any) -> Any:
    return lambda self, record: None


def _overdue(kind: type) -> Callable[[], Undo]:
    """Return a mutation by which a deadline passes, and nothing comes of it."""

    def apply() -> Undo:
        before = core._OVERDUE[kind]
        core._OVERDUE[kind] = lambda pool, record: None
        return lambda: core._OVERDUE.__setitem__(kind, before)

    return apply


def _both(*mutations: Callable[[], Undo]) -> Undo:
    undo = [apply() for apply in mutations]

    def undo_all() -> None:
        for one in undo:
            one()

    return undo_all


def _twice(before: Any) -> Any:
    def send(pool: Any, record: Any, taken: Any) -> None:
        before(pool, record, taken)
        before(pool, record, taken)

    return send


def _childless(before: Any) -> Any:
    def lose(pool: Any, one: Any, data: Any) -> None:
        one.processes.clear()
        before(pool, one, data)

    return lose


def _answering_no(before: Any) -> Any:
    """Reject what the hook did not answer, whatever is set."""

    def miss(pool: Any, question: Any, data: Any) -> None:
        options, pool.options = pool.options, replace(pool.options, request_failure="reject")
        before(pool, question, data)
        pool.options = options

    return miss


def _answering_yes(before: Any) -> Any:
    """Accept whatever was asked and not answered."""

    def miss(pool: Any, question: Any, data: Any) -> None:
        before(pool, question, data)
        pool.effects = [
            one.__replace__(accepted=True) if type(one) is v.AppAnswered and question.job is None else one
            for one in pool.effects
        ]

    return miss


def _kept_question(before: Any) -> Any:
    def finish(pool: Any, question: Any, data: Any = None) -> None:
        before(pool, question, data)
        if question.job is None:
            question.generation.asks.append(question)
            question.state = AskState.PENDING

    return finish


def _backwards(before: Any) -> Any:
    def brief(pool: Any, process: Any) -> None:
        news, pool.news = pool.news, dict(reversed(pool.news.items()))
        before(pool, process)
        pool.news = news

    return brief


def _never_over(before: Any) -> Any:
    return lambda pool, event: before(pool, event) if event.body is not None else None


def _resident_is_spared(before: Any) -> Any:
    return lambda pool, record, event: None if record.is_resident else before(pool, record, event)


def _by_another_name(before: Any) -> Any:
    """Take a stall of the request hook for that of a job."""

    def stalled(pool: Any, record: Any, event: Any) -> None:
        was_resident, record.is_resident = record.is_resident, False
        before(pool, record, event)
        record.is_resident = was_resident

    return stalled


def _as_before(before: Any) -> Any:
    """Take whatever a launcher has loaded for the code that serves."""

    def loaded(pool: Any, event: Any) -> None:
        serving = pool.serving
        before(pool, event.__replace__(digest=serving.digest) if serving is not None else event)

    return loaded


def _forgotten_reload(before: Any) -> Any:
    """Forget who waits for the reload, and go on with it."""

    def give_up(pool: Any, event: Any) -> None:
        if event.number in pool.job_queue.reloads:
            before(pool, event)

    return give_up


def _answered_reload(before: Any) -> Any:
    """Answer the one who does not wait any more."""

    def give_up(pool: Any, event: Any) -> None:
        if pool.trial is not None and pool.trial.request == event.number:
            generation.step(pool, pool.trial, GE.FAILED, core.generation.PrewarmError("given up"))
        else:
            before(pool, event)

    return give_up


def _not_awaited(before: Any) -> Any:
    """Take a launcher that was killed for gone, once the pool closes."""

    def close(pool: Any) -> None:
        killed = [one for one in pool.launchers.values() if one.state in (L.KILLED, L.UNKILLED)]
        for one in killed:
            pool.deadlines.clear(one)
            del pool.launchers[one.number]
        before(pool)

    return close


def _started_when_sent(before: Any) -> Any:
    """Tell of a start before the process was looked at, and has acknowledged it."""

    def claim(pool: Any, record: Any, taken: Any) -> None:
        before(pool, record, taken)
        pool.emit(v.HasStarted(record.number))

    return claim


def _asked_first(before: Any) -> Any:
    """Ask the processes to exit before they are killed."""

    def close(pool: Any, event: Any) -> None:
        before(pool, v.Close())
        if not event.kill:
            return
        for one in list(pool.processes.values()):
            if one.state is not P.RETIRING:
                core.end(pool, one, PE.KILL, core.Decision("drained", "the pool was closed at once"))

    return close


def _counting_back(before: Any) -> Any:
    """Use the number of a generation that has failed again."""

    def fail(pool: Any, record: Any, error: Any) -> None:
        before(pool, record, error)
        pool.generations_made -= 1

    return fail


def _refused_launch(before: Any) -> Any:
    """Refuse a launch for which no process is expected in time."""

    def accept(pool: Any, event: Any) -> None:
        taken = job_queue._job_of(pool, event)
        error = None if job_queue.candidate(pool) is not None else job_queue._reason_not_to_wait(pool, taken)
        if error is not None:
            pool.emit(v.Refused(event.number, error))
        else:
            before(pool, event)

    return accept


MUTATIONS: dict[str, Callable[[], Undo]] = {
    # Jobs and their order.
    "drop a release": _attribute(job, "_give_back", _nothing),
    "claim without looking": _without(process.TABLE, P.CLAIMED, PE.UNFIT, "withdraw"),
    "count a start that was not sent": _without(job.TABLE, J.STARTING, JE.UNSENT, "_void_attempt"),
    "count attempts while reserved": lambda: _both(
        _in_row(job.TABLE, J.NEW, JE.HOLD, "_hold", _count_reserved),
        _in_row(job.TABLE, J.UNHELD, JE.HOLD, "_hold", _count_reserved),
    ),
    "start twice": _in_row(process.TABLE, P.IDLE, PE.CLAIM, "send_start", _twice),
    "try a fourth process": _attribute(accounts, "MAX_ATTEMPTS", 4),
    "try two processes": _attribute(accounts, "MAX_ATTEMPTS", 2),
    "try again after the deadline": _attribute(
        accounts,
        "may_try_again",
        lambda before: lambda pool, record, taken: taken.attempts < 3 and pool.job_queue.state is JobQueueState.OPEN,
    ),
    "retry what may have started": _attribute(
        accounts,
        "may_try_again",
        lambda before: lambda pool, record, taken: taken.attempts < 3 and pool.now < taken.expires_at,
    ),
    "serve the newest first": _attribute(job_queue, "serve", _newest),
    "put back at the end": _attribute(job_queue, "put_back", _last_first),
    "one job more than max_jobs": _attribute(job_queue, "capacity_problem", _one_more),
    "one job less than max_jobs": _attribute(job_queue, "capacity_problem", _one_less),
    "forget the deadline of a queued job": _row(job.TABLE, J.NEW, JE.QUEUE, bound=Bound.NONE),
    "forget the deadline of an offer": _row(job.TABLE, J.NEW, JE.OFFER, bound=Bound.NONE),
    "forget the deadline of a reservation": _row(job.TABLE, J.NEW, JE.HOLD, bound=Bound.NONE),
    "the next process of a reservation renews its time": _row(job.TABLE, J.UNHELD, JE.HOLD, bound=Bound.RESERVATION),
    "leave a withdrawn offer in the queue": _attribute(
        job_queue,
        "leave",
        lambda before: lambda pool, one: (pool.job_queue.jobs.pop(one.number), pool.job_queue.by_id.pop(one.id)),
    ),
    "answer before the death": _in_row(
        job.TABLE,
        J.STARTING,
        JE.CANCEL,
        "_stop",
        lambda before: (
            lambda pool, one, decision: (
                pool.emit(v.NotStarted(one.number, job.never_started(one, "cancelled"))),
                before(pool, one, decision),
            )
        ),
    ),
    "cancel of a waiting job does nothing": _row(
        job.TABLE, J.WAITING, JE.CANCEL, then=J.WAITING, bound=Bound.KEEP, do=()
    ),
    "a recalled job is tried again": _row(
        job.TABLE, J.RECALLED, JE.LOST, then=J.WAITING, bound=Bound.LAUNCH, do=(job._put_back,)
    ),
    "a late acknowledgement of a recalled job is not passed on": _without(
        job.TABLE, J.RECALLED, JE.STARTED, "_has_started"
    ),
    # Processes.
    "last words before the death": _handler(v.Died, _words_first),
    "last words are lost": _handler(v.Died, _words_lost),
    "wait as long as start_timeout says": _attribute(
        accounts, "start_seconds", lambda before: lambda pool, taken: pool.options.start_timeout
    ),
    "forget the deadline of a start": _row(process.TABLE, P.IDLE, PE.CLAIM, bound=Bound.NONE),
    "forget the deadline of a job": _row(process.TABLE, P.CLAIMED, PE.STARTED, bound=Bound.NONE),
    "forget the deadline of a fork": _row(process.TABLE, P.REQUESTED, PE.OVERDUE, bound=Bound.NONE),
    "forget the deadline of a kill": _row(process.TABLE, P.DUMPING, PE.DUMPED, bound=Bound.NONE),
    "forget the deadline of a status": _row(process.TABLE, P.RUNNING, PE.DIED, bound=Bound.NONE),
    "an orphan keeps its old deadline": _row(process.TABLE, P.UNREPORTED, PE.ORPHANED, bound=Bound.KEEP),
    "dump and kill at once": _without(process.TABLE, P.DUMPING, PE.DUMPED, "kill"),
    "do not kill what was forked in vain": _without(process.TABLE, P.DOOMED, PE.FORKED, "kill"),
    "do not cut the lifeline": _without(process.TABLE, P.REQUESTED, PE.STOP, "cut_lifeline"),
    "do not look at an overdue launcher": _without(process.TABLE, P.REQUESTED, PE.OVERDUE, "look_at_launcher"),
    "spare a storm": _handler(v.Overcrowded, _nothing),
    "spare what a storm has started": _attribute(
        process_actions, "Kill", lambda before: lambda process, with_descendants: before(process)
    ),
    "kill only once": _without(process.TABLE, P.SIGNALLED, PE.OVERDUE, "kill_again"),
    "give up at once what is not killed": _row(
        process.TABLE, P.SIGNALLED, PE.OVERDUE, then=P.GONE, bound=Bound.NONE, do=(process_actions.finish_alive,)
    ),
    "do not watch the memory": _without(process.TABLE, P.REQUESTED, PE.FORKED, "watch_memory"),
    "do not tell the job": _without(process.TABLE, P.RUNNING, PE.STOP, "ask_job_to_end"),
    "do not read the status of an orphan": _without(process.TABLE, P.DEAD, PE.ORPHANED, "read_status"),
    "finish twice": _attribute(process_actions, "_file", _finish_again),
    "forget before the report": _attribute(
        process_actions,
        "_file",
        lambda before: lambda pool, one: (pool.emit(v.Forget(one.id)), before(pool, one)),
    ),
    "the last decision is the cause": _attribute(core, "end", _overwriting),
    "a decision that was not obeyed is the cause": _attribute(exit_verdict, "_took_effect", _obeyed),
    "an own end is taken for a cancellation": _row(
        process.TABLE, P.STOPPING, PE.SPARED_AT_END, do=(evidence.note_end,)
    ),
    "a stopped idle process is left alone": _row(
        process.TABLE, P.IDLE, PE.STOPPED, then=P.IDLE, bound=Bound.KEEP, do=()
    ),
    "a dead process stays idle": _row(process.TABLE, P.IDLE, PE.UNFIT, then=P.IDLE, bound=Bound.KEEP),
    "a breach is forgiven": _attribute(process_messages, "break_protocol", _nothing),
    "what repeats itself is believed": _attribute(evidence, "is_repeated", lambda before: lambda *arguments: False),
    # Generations.
    "serve unproven code": _attribute(job_queue, "candidate", _any_generation),
    "a reload at idle target 0 proves nothing": _in_row(
        generation.TABLE, G.LOADING, GE.LOADED_TO_PROVE, "_prove", _proof_of_none
    ),
    "prove one process less": _attribute(generation, "idle_target", _more(-1)),
    "new code starts before it is announced": _attribute(generation, "_announce", _nothing),
    "old code keeps its idle processes": _attribute(generation, "_let_go", _nothing),
    "changed code is not proven": _attribute(
        launcher, "_take_for_new_code", lambda before: lambda pool, one, serving: serving
    ),
    "one prewarm more than max_concurrent_prewarms": _attribute(accounts, "most_prewarms", _more(1)),
    "one idle process more": _attribute(generation, "idle_target", _more(1)),
    "a drain waits for a prewarm that nobody wants": _attribute(core, "_shed", _shed_idle_only),
    "surplus stays": _attribute(generation, "_surplus", lambda before: lambda pool, one: []),
    "a reload that failed is not answered": _without(generation.TABLE, G.PROVING, GE.FAILED, "_fail"),
    "a retired generation keeps its launcher": _attribute(core, "_end_retired", _nothing),
    "reloads overtake each other": _attribute(
        core, "_give_up_reloads", lambda before: lambda pool: pool.job_queue.reloads.clear()
    ),
    # Launchers.
    "no deadline after CloseLauncher": _row(launcher.TABLE, L.UP, LE.CLOSE, bound=Bound.NONE),
    "no deadline after KillLauncher": _row(launcher.TABLE, L.CLOSING, LE.OVERDUE, bound=Bound.NONE),
    "no deadline while it loads": _row(launcher.TABLE, L.STARTING, LE.BEGAN, bound=Bound.NONE),
    "a lost launcher is not replaced": _attribute(launcher, "replace_missing", _nothing),
    "replace a lost launcher while closing": _attribute(
        launcher,
        "replace_missing",
        lambda before: (
            lambda pool: (
                launcher.make_launcher(pool, pool.serving, script="keep", delay=0.0)
                if pool.serving is not None and pool.serving.launcher is None
                else None
            )
        ),
    ),
    "an unkillable launcher is waited for": _row(
        launcher.TABLE, L.UNKILLED, LE.OVERDUE, then=L.UNKILLED, bound=Bound.NONE, do=()
    ),
    "its children do not hear of a loss": _in_row(launcher.TABLE, L.UP, LE.LOST, "_lose_up", _childless),
    # The hook.
    "a question waits for ever": _row(questions.TABLE, AskState.SENT, AskEvent.OVERDUE, do=()),
    "a lost resident answers nothing": _row(questions.TABLE, AskState.SENT, AskEvent.LOST, do=(questions._finish,)),
    "a rejection keeps the process": _attribute(questions, "_reject", _nothing),
    "no resident after the first": _attribute(generation, "_balance_resident", _nothing),
    "a question that is not answered is not taken back": _without(
        questions.TABLE, AskState.SENT, AskEvent.OVERDUE, "_take_back"
    ),
    "a question of a reservation that is over is not taken back": _without(
        questions.TABLE, AskState.SENT, AskEvent.DROPPED, "_take_back"
    ),
    "an answered question is taken back": _row(
        questions.TABLE, AskState.SENT, AskEvent.ANSWERED, do=(questions._take_back, questions._pass_on)
    ),
    "request_failure is not asked for": lambda: _both(
        _in_row(questions.TABLE, AskState.SENT, AskEvent.LOST, "_fail", _answering_no),
        _in_row(questions.TABLE, AskState.SENT, AskEvent.OVERDUE, "_miss", _answering_no),
    ),
    "a resident that stands still is left alone": _handler(
        v.Stalled, lambda before: core._of_process(_resident_is_spared(process_messages.stalled))
    ),
    "a resident's stall is taken for a job's": _handler(
        v.Stalled, lambda before: core._of_process(_by_another_name(process_messages.stalled))
    ),
    "the resident is not watched": _attribute(resident, "put_to_work", _nothing),
    "a question is put again when it is over": _attribute(questions, "_finish", _kept_question),
    "a question of an integration is not given up": _attribute(questions, "give_up", _nothing),
    "the setting stands in for an integration": _in_row(
        questions.TABLE, AskState.SENT, AskEvent.OVERDUE, "_miss", _answering_yes
    ),
    "anything may be asked": _attribute(questions, "_reason_not_to_ask", lambda before: lambda pool, topic: None),
    "a resident is not briefed": _attribute(resident, "brief", _nothing),
    "a resident is briefed in another order": _attribute(resident, "brief", _backwards),
    "news go to whoever is there": _attribute(resident, "takes", lambda before: lambda of, topic: True),
    "news that are over are kept": _handler(v.SetNews, _never_over),
    "a resident that dies is replaced at once": _attribute(resident, "note_loss", _nothing),
    "a drain takes the hook from reservations": _attribute(
        questions, "is_needed", lambda before: lambda pool, of: bool(of.asks)
    ),
    "a drain keeps the hook for nobody": _attribute(questions, "is_needed", lambda before: lambda pool, of: True),
    # Reloads.
    "a reload that is given up goes on": _handler(v.GiveUpReload, _forgotten_reload),
    "a reload that is given up is answered": _handler(v.GiveUpReload, _answered_reload),
    "a waiting reload is not given up": _handler(
        v.GiveUpReload,
        lambda before: lambda pool, event: None if event.number in pool.job_queue.reloads else before(pool, event),
    ),
    "changed code serves after a lost launcher": _handler(v.LauncherLoaded, _as_before),
    "a number of a generation is used again": _in_row(generation.TABLE, G.LOADING, GE.FAILED, "_fail", _counting_back),
    # Closing and launching.
    "a launcher that was killed is not awaited": _attribute(core, "_close_launchers", _not_awaited),
    "close kills what it has asked to exit": _handler(v.Close, _asked_first),
    "a start is told of before the look": _in_row(job.TABLE, J.NEW, JE.TAKE, "_claim", _started_when_sent),
    "a launch is refused by the expected wait": _handler(v.Launch, _refused_launch),
    "memory of what is neither idle nor running counts": _handler(
        v.Measured,
        lambda before: (
            lambda pool, event: pool.emit(
                accounts.MemorySampled(event.process, 0, "idle", event.private_mb, at=pool.wall)
            )
        ),
    ),
    # The pool.
    "a hold never ends": _attribute(Deadlines, "go_on", lambda before: lambda self, record, now: None),
    "a void deadline fires": _attribute(Deadlines, "_void", _no_void),
    "the pool is never empty": _attribute(core, "_close_launchers", _nothing),
    "closing ends no job": _attribute(core, "_end_jobs", _nothing),
    "a drain has no end": _overdue(records.JobQueue),
    "a question has no end": _overdue(records.Ask),
    "waiting jobs are ended last": _attribute(
        core,
        "_end_jobs",
        lambda before: (
            lambda pool, decision: (
                [core._stop(pool, one, decision) for one in list(pool.processes.values())],
                [job.cancel_for(pool, one, decision) for one in list(pool.job_queue.jobs.values())],
            )
        ),
    ),
}


EQUIVALENT: dict[str, str] = {}
"""Mutations that change nothing which anybody could see, with the reason."""


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Run with a mutation of the core."""
    undo = MUTATIONS[name]()
    try:
        yield
    finally:
        undo()
