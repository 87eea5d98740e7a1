"""Table of a process's life.

``requested → forked → warming → idle → claimed → running → draining → cleaning → dead → gone``. A reserved process is
in ``reserved``, between ``idle`` and ``claimed``. If a job reports that it begins to end by itself, its process is in
``ending`` before ``draining``. :mod:`.states` explains all states and events.

Two rules stand beside the table, since each rule would fill a third of the table:

- Messages of a process whose end is certain are evidence: see :mod:`.evidence`. Only messages about its job have an
  effect.
- The first decision to end a process is the cause in the report. A later decision can change the actions, but never
  the cause.

All of this runs in the supervisor, like the whole core. :mod:`.process_actions` has the actions of the rows.
:mod:`.process_reports` turns messages and reports of watches into events of the table.
"""

from __future__ import annotations

from ..events import ProcessChanged
from . import evidence, questions
from . import process_actions as do
from .evidence import BECOMING_WARM, RUNS_JOB
from .records import Pool, Process
from .state_machine import Machine, Row, quiet, register, step
from .states import Bound, JobEvent
from .states import ProcessEvent as E
from .states import ProcessState as S

__all__ = ["TABLE", "UNBOUNDED"]


# --- the table -----------------------------------------------------------------------------------

_NOTHING = (E.STOPPED, E.ORPHANED)
"""Events without effect while a process becomes warm, runs a job, or is killed.

A stopped process may be continued. After the fork, a process lives on without its launcher.
"""

TABLE: dict[S, dict[E, Row]] = {
    S.REQUESTED: {
        E.FORKED: Row(S.FORKED, Bound.PREWARM, (do.born, do.watch_memory)),
        E.FORK_FAILED: Row(S.GONE, Bound.NONE, (do.not_forked, do.count_failure, do.finish)),
        E.STOP: Row(S.DOOMED, Bound.KEEP, (do.decide, do.count_failure, do.cut_lifeline)),
        E.KILL: Row(S.DOOMED, Bound.KEEP, (do.decide, do.count_failure, do.cut_lifeline)),
        E.OVERDUE: Row(S.REQUESTED, Bound.FORK, (do.look_at_launcher,)),
        E.SAMPLED: Row(S.REQUESTED, Bound.KEEP, (do.judge_launcher,)),
        E.ORPHANED: Row(S.GONE, Bound.NONE, (do.abandon, do.cut_lifeline, do.finish)),
    },
    S.DOOMED: {
        E.FORKED: Row(S.SIGNALLED, Bound.KILL, (do.born, do.kill)),
        E.FORK_FAILED: Row(S.GONE, Bound.NONE, (do.finish,)),
        E.OVERDUE: Row(S.DOOMED, Bound.FORK, (do.look_at_launcher,)),
        E.SAMPLED: Row(S.DOOMED, Bound.KEEP, (do.judge_launcher,)),
        E.ORPHANED: Row(S.GONE, Bound.NONE, (do.abandon, do.finish)),
        **quiet(S.DOOMED, E.STOP, E.KILL),
    },
    S.FORKED: {
        E.HELLO: Row(S.WARMING, Bound.KEEP, (do.learn,)),
        E.STOP: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.count_failure, do.kill)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.count_failure, do.kill)),
        E.DUMP_AND_KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.count_failure, do.kill)),
        E.OVERDUE: Row(S.SIGNALLED, Bound.KILL, (do.prewarm_overdue, do.count_failure, do.kill)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.FORKED, *_NOTHING),
    },
    S.WARMING: {
        E.WARM: Row(S.IDLE, Bound.NONE, (do.warmed, do.prove)),
        E.INSTALLED: Row(S.RESIDENT, Bound.NONE, (do.warmed, do.install)),
        E.PREWARM_FAILED: Row(S.FAILING, Bound.CLEANUP, (evidence.fail_prewarm, do.count_failure)),
        E.STOP: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.count_failure, do.kill)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.count_failure, do.kill)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.decide, do.count_failure, do.dump)),
        E.OVERDUE: Row(S.DUMPING, Bound.DUMP, (do.prewarm_overdue, do.count_failure, do.dump)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.WARMING, *_NOTHING),
    },
    S.IDLE: {
        E.RESERVE: Row(S.RESERVED, Bound.NONE),
        E.CLAIM: Row(S.CLAIMED, Bound.START, (do.send_start,)),
        E.STOP: Row(S.RETIRING, Bound.CLEANUP, (do.decide, do.ask_to_exit)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.kill)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.decide, do.dump)),
        E.STOPPED: Row(S.SIGNALLED, Bound.KILL, (do.was_stopped, do.kill)),
        E.UNFIT: Row(S.UNFIT, Bound.KILL),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.IDLE, E.ORPHANED),
    },
    S.UNFIT: {
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.kill)),
        E.OVERDUE: Row(S.SIGNALLED, Bound.KILL, (do.death_overdue, do.kill)),
        E.STOPPED: Row(S.SIGNALLED, Bound.KILL, (do.was_stopped, do.kill)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.UNFIT, E.STOP, E.DUMP_AND_KILL, E.ORPHANED),
    },
    S.RESERVED: {
        E.RELEASE: Row(S.IDLE, Bound.NONE),
        E.CLAIM: Row(S.CLAIMED, Bound.START, (do.send_start,)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.kill)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.decide, do.dump)),
        E.STOPPED: Row(S.SIGNALLED, Bound.KILL, (do.was_stopped, do.kill)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.RESERVED, E.ORPHANED),
    },
    S.CLAIMED: {
        E.STARTED: Row(S.RUNNING, Bound.JOB, (do.has_started,)),
        E.STOP: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.kill)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.kill)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.decide, do.dump)),
        E.OVERDUE: Row(S.DUMPING, Bound.DUMP, (do.start_overdue, do.dump)),
        E.STOPPED: Row(S.SIGNALLED, Bound.KILL, (do.was_stopped, do.kill)),
        E.UNFIT: Row(S.UNFIT, Bound.KILL, (do.withdraw,)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.CLAIMED, E.ORPHANED),
    },
    S.RUNNING: {
        E.ENDING: Row(S.ENDING, Bound.OWN_END, (do.own_end,)),
        E.ENDED: Row(S.DRAINING, Bound.CALLBACKS, (evidence.note_end, do.own_end)),
        E.STOP: Row(S.STOPPING, Bound.SHUTDOWN, (do.decide, do.ask_job_to_end)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.kill)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.decide, do.dump)),
        E.OVERDUE: Row(S.STOPPING, Bound.SHUTDOWN, (do.job_overdue, do.ask_job_to_end)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.RUNNING, *_NOTHING),
    },
    S.ENDING: {
        E.ENDED: Row(S.DRAINING, Bound.CALLBACKS, (evidence.note_end, do.own_end)),
        E.STOP: Row(S.STOPPING, Bound.SHUTDOWN, (do.decide, do.ask_job_to_end)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.kill)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.decide, do.dump)),
        E.OVERDUE: Row(S.DUMPING, Bound.DUMP, (do.own_end_overdue, do.dump)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.ENDING, *_NOTHING),
    },
    S.DRAINING: {
        E.CLEANING_UP: Row(S.CLEANING, Bound.CLEANUP, (evidence.note_cleaning_up,)),
        E.OVERRAN: Row(S.LEAVING, Bound.CLEANUP, (evidence.note_cleaning_up, do.decide_overrun)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.kill)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.decide, do.dump)),
        E.OVERDUE: Row(S.DUMPING, Bound.DUMP, (do.callbacks_overdue, do.dump)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.DRAINING, E.STOP, *_NOTHING),
    },
    S.CLEANING: {
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.kill)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.decide, do.dump)),
        E.OVERDUE: Row(S.DUMPING, Bound.DUMP, (do.clean_up_overdue, do.dump)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.CLEANING, E.STOP, *_NOTHING),
    },
    S.RESIDENT: {
        E.STOP: Row(S.RETIRING, Bound.CLEANUP, (do.decide, do.ask_to_exit)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.decide, do.kill)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.decide, do.dump)),
        E.STOPPED: Row(S.SIGNALLED, Bound.KILL, (do.was_stopped, do.kill)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.RESIDENT, E.ORPHANED),
    },
    S.FAILING: {
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.kill,)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.dump,)),
        E.OVERDUE: Row(S.DUMPING, Bound.DUMP, (do.dump,)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.FAILING, E.STOP, *_NOTHING),
    },
    S.RETIRING: {
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.kill,)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.dump,)),
        E.OVERDUE: Row(S.DUMPING, Bound.DUMP, (do.dump,)),
        E.STOPPED: Row(S.SIGNALLED, Bound.KILL, (do.kill,)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.RETIRING, E.STOP, E.ORPHANED),
    },
    S.STOPPING: {
        E.SPARED: Row(S.ENDING, Bound.OWN_END, (do.void_decision,)),
        E.SPARED_AT_END: Row(S.DRAINING, Bound.CALLBACKS, (do.void_decision, evidence.note_end)),
        E.ENDED: Row(S.LEAVING, Bound.CALLBACKS, (evidence.note_end,)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.kill,)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.dump,)),
        E.OVERDUE: Row(S.DUMPING, Bound.DUMP, (do.dump,)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.STOPPING, E.ENDING, E.STOP, *_NOTHING),
    },
    S.LEAVING: {
        E.CLEANING_UP: Row(S.LEAVING, Bound.CLEANUP, (evidence.note_cleaning_up,)),
        E.OVERRAN: Row(S.LEAVING, Bound.CLEANUP, (evidence.note_cleaning_up, do.note_overrun)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.kill,)),
        E.DUMP_AND_KILL: Row(S.DUMPING, Bound.DUMP, (do.dump,)),
        E.OVERDUE: Row(S.DUMPING, Bound.DUMP, (do.dump,)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.LEAVING, E.STOP, *_NOTHING),
    },
    S.DUMPING: {
        E.DUMPED: Row(S.SIGNALLED, Bound.KILL, (do.note_stacks, do.kill)),
        E.KILL: Row(S.SIGNALLED, Bound.KILL, (do.kill,)),
        E.OVERDUE: Row(S.SIGNALLED, Bound.KILL, (do.kill,)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.DUMPING, E.STOP, E.DUMP_AND_KILL, *_NOTHING),
    },
    S.SIGNALLED: {
        E.DUMPED: Row(S.SIGNALLED, Bound.KEEP, (do.note_stacks,)),
        E.OVERDUE: Row(S.UNKILLED, Bound.GIVE_UP, (do.kill_again,)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.SIGNALLED, E.STOP, E.KILL, E.DUMP_AND_KILL, *_NOTHING),
    },
    S.UNKILLED: {
        E.OVERDUE: Row(S.GONE, Bound.NONE, (do.finish_alive,)),
        E.DIED: Row(S.DEAD, Bound.REAP, (do.die,)),
        **quiet(S.UNKILLED, E.STOP, E.KILL, E.DUMP_AND_KILL, *_NOTHING),
    },
    S.DEAD: {
        E.REAPED: Row(S.GONE, Bound.NONE, (do.finish,)),
        E.ORPHANED: Row(S.UNREPORTED, Bound.REAP, (do.read_status,)),
        E.OVERDUE: Row(S.UNREPORTED, Bound.REAP, (do.examine,)),
        **quiet(S.DEAD, E.STOP, E.KILL, E.DUMP_AND_KILL),
    },
    S.UNREPORTED: {
        E.REAPED: Row(S.GONE, Bound.NONE, (do.finish,)),
        E.ORPHANED: Row(S.UNREPORTED, Bound.REAP, (do.read_status,)),
        E.TRACED: Row(S.GONE, Bound.NONE, (do.finish_traced,)),
        E.UNTRACED: Row(S.UNREPORTED, Bound.KEEP, (do.replace_parent,)),
        E.OVERDUE: Row(S.GONE, Bound.NONE, (do.finish,)),
        **quiet(S.UNREPORTED, E.STOP, E.KILL, E.DUMP_AND_KILL),
    },
    S.GONE: {},
}

UNBOUNDED: dict[S, str] = {
    S.IDLE: "it waits for its job; its memory and life are watched, and idle_ttl ends surplus processes",
    S.RESERVED: "its reservation has a deadline",
    S.RESIDENT: "it lives as long as its generation; each question to it has a deadline",
    S.RUNNING: "job_timeout is off by default; its event loop and memory are watched",
    S.GONE: "its record is dropped",
}
"""Reasons why states may have no deadline."""


# --- the machine ---------------------------------------------------------------------------------


def _changed(pool: Pool, process: Process, before: S) -> None:
    after, of = process.state, process.generation
    if process.decision is None and not process.has_died:
        process.state_at_end = before
    if process.is_held and after not in RUNS_JOB:
        pool.deadlines.go_on(process, pool.now)  # a process that is being killed, or is dead, sends no result
    if before in BECOMING_WARM and after not in BECOMING_WARM:
        of.warming.pop(process.id, None)
        pool.is_unbalanced = True
    if before is S.IDLE:
        of.idle.pop(process.id, None)
        pool.is_unbalanced = True
    if after is S.IDLE:
        of.idle[process.id] = process
        pool.is_unbalanced = True
    if process.is_resident and after is not S.RESIDENT and after not in BECOMING_WARM:
        questions.lost(pool, process)
    if before.public != after.public:
        job_id = process.job.id if process.job is not None else None
        change = (before.public, after.public, job_id)
        pool.emit(ProcessChanged(process.id, process.pid, of.number, *change, at=pool.wall))
    if process.job is not None and after in _TELLS_JOB:
        step(pool, process.job, JobEvent.END, process)


_TELLS_JOB = frozenset((S.STOPPING, S.LEAVING, S.DUMPING, S.SIGNALLED))
"""States in which the pool ends the process. The step into such a state is an event of the job, too."""

machine = register(Process, Machine(TABLE, do.seconds, _changed, lambda process: f"process {process.id}"))
