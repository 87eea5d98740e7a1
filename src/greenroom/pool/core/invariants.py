"""Invariants of a pool's records."""

from __future__ import annotations

from itertools import pairwise

from . import generation, job, launcher, process
from .records import Pool, Process
from .states import GenerationState, JobQueueState, JobState, LauncherState, ProcessState

__all__ = ["violations"]

_WAITS = frozenset((JobState.WAITING, JobState.OFFERED, JobState.UNHELD))
_NOT_ON_BOOKS = frozenset((JobState.NEW, JobState.ENDED, JobState.WITHDRAWN))
_ON_TRIAL = frozenset((GenerationState.LOADING, GenerationState.PROVING))
_AT_WORK = frozenset((ProcessState.RUNNING, ProcessState.ENDING, ProcessState.DRAINING, ProcessState.CLEANING))
_BECOMING_WARM = frozenset((ProcessState.REQUESTED, ProcessState.FORKED, ProcessState.WARMING))


def violations(pool: Pool) -> list[str]:
    """Return a sentence for each invariant that does not hold."""
    found: list[str] = []
    for child in pool.processes.values():
        _check_process(child, found)
    if pool.job_queue.jobs or pool.job_queue.waiting:
        _check_jobs(pool, found)
    for one in pool.launchers.values():
        if one.due is None and one.state not in launcher.UNBOUNDED:
            found.append(f"launcher {one.number} is {one.state.name} and has no deadline")
        if one.state is LauncherState.LOST:
            found.append(f"launcher {one.number} is lost and still has a record")
    _check_generations(pool, found)
    if pool.job_queue.state is JobQueueState.CLOSED and (pool.processes or pool.job_queue.jobs or pool.launchers):
        found.append("the pool is closed and not empty")
    return found


def _check_process(one: Process, found: list[str]) -> None:
    state = one.state
    if one.due is None and one.left is None and state not in process.UNBOUNDED:
        found.append(f"process {one.id} is {state.name} and has no deadline")
    if state is ProcessState.GONE:
        found.append(f"process {one.id} is gone and still has a record")
    # A dead process keeps its job for the report, while another process may get the same job.
    if one.job is not None and not one.has_died and one.job.process is not one:
        found.append(f"process {one.id} has job {one.job.id}, which has another process")
    of = one.generation
    if (state is ProcessState.IDLE) != (one.id in of.idle):
        found.append(f"process {one.id} is {state.name}, which does not fit the idle queue")
    if (state in _BECOMING_WARM) != (one.id in of.warming):
        found.append(f"process {one.id} is {state.name}, which does not fit the warming processes")


def _check_jobs(pool: Pool, found: list[str]) -> None:
    waiting = pool.job_queue.waiting
    if len(waiting) > 1 and any(one.number > next_.number for one, next_ in pairwise(waiting)):
        found.append("the waiting jobs are not in the order of their arrival")
    for one in pool.job_queue.jobs.values():
        state = one.state
        if one.due is None and state not in job.UNBOUNDED:
            found.append(f"job {one.id} is {state.name} and has no deadline")
        if state in _NOT_ON_BOOKS:
            found.append(f"job {one.id} is {state.name} and still has a record")
        waits = state in _WAITS
        if waits != (one in waiting):
            found.append(f"job {one.id} is {state.name}, which does not fit the queue")
        if waits == (one.process is not None):
            found.append(f"job {one.id} is {state.name}, which does not fit its process")
        if state is JobState.ENDING and one.process is not None and one.process.state in _AT_WORK:
            found.append(f"job {one.id} is to end, and its process is {one.process.state.name}")
        if one.process is not None and (one.process.job is not one or one.process.id not in pool.processes):
            found.append(f"job {one.id} has a process that is not its own")


def _check_generations(pool: Pool, found: list[str]) -> None:
    for one in pool.generations.values():
        state = one.state
        if one.due is None and state not in generation.UNBOUNDED:
            found.append(f"generation {one.number} is {state.name} and has no deadline")
        if (state is GenerationState.SERVING) != (one is pool.serving):
            found.append(f"generation {one.number} is {state.name}, which does not fit the serving generation")
        if pool.serving is not None and (state in _ON_TRIAL) != (one is pool.trial):
            found.append(f"generation {one.number} is {state.name}, which does not fit the generation on trial")
    for known in (pool.serving, pool.trial):
        if known is not None and pool.generations.get(known.number) is not known:
            found += [f"generation {known.number} is {known.state.name} and has no record"]
