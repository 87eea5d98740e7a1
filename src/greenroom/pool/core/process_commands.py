"""Acts on a process: request, reserve, release, claim and end."""

from __future__ import annotations

from ..events import ProcessChanged
from .exit_verdict import Decision
from .records import Generation, Job, Launcher, Pool, Process
from .stalls import Patience
from .state_machine import step
from .states import ProcessEvent, ProcessState
from .vocabulary import Fork

__all__ = ["FORK_TIMEOUT", "STARVED_FORK_TIMEOUT", "claim", "end", "release", "request", "reserve"]

FORK_TIMEOUT = 5.0
"""Seconds for a launcher to answer a fork request. The launcher is sampled twice in this time."""
STARVED_FORK_TIMEOUT = 30.0
"""Seconds for a launcher that answers other requests meanwhile, or lacks CPU."""


def request(pool: Pool, of: Generation, launcher: Launcher, *, is_resident: bool = False) -> Process:
    """Ask a launcher for a process, and return the new record."""
    pool.processes_made += 1
    made = Process(
        id=f"{of.number}-{pool.processes_made}",
        launcher=launcher,
        generation=of,
        options=of.options,
        requested_at=pool.now,
        requested_wall=pool.wall,
        patience=Patience(FORK_TIMEOUT / 2, STARVED_FORK_TIMEOUT),
        facts=of.facts,
        is_resident=is_resident,
    )
    pool.processes[made.id] = of.processes[made.id] = launcher.processes[made.id] = made
    of.warming[made.id] = made
    if is_resident:
        of.resident = made
    pool.is_empty = False
    pool.emit(ProcessChanged(made.id, None, of.number, "", made.state.public, None, at=pool.wall))
    pool.emit(Fork(made.id, launcher.number))
    pool.deadlines.set(made, pool.now, FORK_TIMEOUT / 2)
    return made


def reserve(pool: Pool, process: Process, job: Job) -> None:
    """Reserve an idle process for a job."""
    process.job = job
    step(pool, process, ProcessEvent.RESERVE)


def release(pool: Pool, process: Process) -> None:
    """Release a reserved process, so that it is idle again."""
    process.job = None
    step(pool, process, ProcessEvent.RELEASE)


def claim(pool: Pool, process: Process, job: Job) -> None:
    """Send a process its one job."""
    process.job = job
    step(pool, process, ProcessEvent.CLAIM, job)


def end(pool: Pool, process: Process, event: ProcessEvent, decision: Decision) -> None:
    """End a process by one of the events ``STOP``, ``KILL`` and ``DUMP_AND_KILL``."""
    if decision.reason == "drained":
        process.is_drained = True
        pool.deadlines.go_on(process, pool.now)
    if process.state is not ProcessState.GONE:
        step(pool, process, event, decision)
