"""Reports about a process, which become events of its table or evidence."""

from __future__ import annotations

from ...clean_text import cut_end
from ...signal_names import SIGSTOP
from . import accounts, evidence, questions
from .evidence import FINAL, LONGEST_COMPLAINT, RUNS_JOB, problem, take_evidence
from .exit_verdict import Decision
from .process_commands import end
from .records import Pool, Process
from .stalls import Stall
from .state_machine import step
from .states import ProcessEvent as E
from .states import ProcessState as S
from .vocabulary import (
    ERROR,
    Answered,
    CleaningUp,
    Ended,
    Ending,
    Hello,
    Log,
    Message,
    Nonsense,
    Overcrowded,
    Overweight,
    PrewarmFailed,
    Stalled,
    Started,
    Stopped,
    Unfit,
    Waits,
    Warm,
)

__all__ = ["break_protocol", "handle", "overcrowded", "overweight", "stalled", "unfit", "waits"]

_END_REASONS = ("cancelled", "drained", "job_timeout")
"""Reasons to end a running job. Such a reason is void if the job had ended by itself before."""


def handle(pool: Pool, process: Process, message: Message) -> None:
    """Handle a message of the process."""
    if isinstance(message, Nonsense):
        break_protocol(pool, process, message.complaint)
        return
    if process.state in FINAL:
        take_evidence(pool, process, message)
        return
    kind = type(message)
    if evidence.is_repeated(process, message):
        break_protocol(pool, process, f"it sent {kind.__name__} again")
        return
    breach = problem(pool, process, message)
    if breach is None and isinstance(message, Answered):
        questions.answered(pool, process, message)
    elif breach is not None or not step(pool, process, _event_of(process, message), message):
        what = breach or f"it sent {kind.__name__!r} while it was {process.state.text}"
        break_protocol(pool, process, what)


_EVENTS: dict[type, E] = {
    Hello: E.HELLO,
    PrewarmFailed: E.PREWARM_FAILED,
    Started: E.STARTED,
}


def _event_of(process: Process, message: Message) -> E:
    if isinstance(message, Warm):
        return E.INSTALLED if process.is_resident else E.WARM
    if isinstance(message, CleaningUp):
        return E.OVERRAN if message.overrun else E.CLEANING_UP
    if process.state is S.STOPPING and process.decision is not None:
        if isinstance(message, Ending) and process.decision.spares_own_end:
            return E.SPARED
        if isinstance(message, Ended) and not message.told and process.decision.reason in _END_REASONS:
            return E.SPARED_AT_END
    if isinstance(message, Ending):
        return E.ENDING
    if isinstance(message, Ended):
        return E.ENDED
    return _EVENTS[type(message)]


def break_protocol(pool: Pool, process: Process, complaint: str) -> None:
    """Kill a process that has broken the protocol."""
    if process.is_distrusted:
        return  # the first breach kills the process; messages that it had sent before still arrive
    process.is_distrusted = True
    complaint = cut_end(complaint, LONGEST_COMPLAINT)
    fields = {"event": "protocol_error", **process.ids, "cause": complaint}
    pool.emit(Log(ERROR, f"{process.label} broke the protocol and is killed: {complaint}", fields))
    end(pool, process, E.KILL, Decision("protocol_error", f"it broke the protocol: {complaint}"))


def stalled(pool: Pool, process: Process, message: Stalled) -> None:
    """Judge a stalled event loop. A process that only lacks CPU is left alone; any other one is ended."""
    accounts.note_stall(pool, process, message.stall)
    if message.stall is Stall.STARVED:
        return
    timeout, standstill = process.options.stall_timeout or 0.0, f"{message.seconds:.1f} s ({message.stall.value})"
    decision = Decision("stalled", f"its event loop stood still for {standstill}; stall_timeout is {timeout:g} s")
    if process.is_resident:
        detail = f"a question or news blocked its event loop for {standstill}, and no offer was answered"
        decision = Decision("request_timeout", detail)
    end(pool, process, E.DUMP_AND_KILL, decision)


def overweight(pool: Pool, process: Process, message: Overweight) -> None:
    """End a process that uses too much memory. Memory goes on growing while the stacks are written."""
    limit = process.options.memory_limit_mb or 0.0
    detail = f"it used {message.memory_mb:.0f} MiB; memory_limit_mb is {limit:g}"
    process.is_overweight = True
    end(pool, process, E.DUMP_AND_KILL, Decision("memory_limit", detail))


def overcrowded(pool: Pool, process: Process, message: Overcrowded) -> None:
    """End a process that starts too many processes. No stacks are written, since more could start meanwhile."""
    limit = process.options.process_limit
    process.is_overcrowded = True
    used_up = ""
    if message.shared_limit is not None:
        used_up = f" (the limit for all is {message.shared_limit} processes and threads)"
    detail = f"it had {message.count} processes{used_up}; process_limit is {limit}"
    end(pool, process, E.KILL, Decision("process_limit", detail))


def unfit(pool: Pool, process: Process, message: Unfit) -> None:
    """Note that the kernel reports an idle process as dead, dying or stopped."""
    if step(pool, process, E.UNFIT, message) and message.is_stopped:
        step(pool, process, E.STOPPED, Stopped(process.id, SIGSTOP))


def waits(pool: Pool, process: Process, message: Waits) -> None:
    """Hold the deadline while a large message waits for memory of the pool, since the job is not at fault.

    In a drain the deadline is not held, because the stop of a worker has a bound.
    """
    if message.waits and process.state in RUNS_JOB and not process.is_drained:
        pool.deadlines.hold(process, pool.now)
    else:
        pool.deadlines.go_on(process, pool.now)
