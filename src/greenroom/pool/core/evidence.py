"""Messages of a process about itself, which are evidence once the end of the process is certain."""

from __future__ import annotations

from ...clean_text import clean, cut_end
from . import accounts
from .exit_verdict import Decision
from .records import Pool, Process
from .state_machine import step
from .states import JobEvent, JobState
from .states import ProcessState as S
from .vocabulary import (
    Answered,
    CleaningUp,
    Ended,
    Ending,
    Happening,
    Hello,
    Message,
    Nonsense,
    PrewarmFailed,
    Started,
)

__all__ = [
    "BECOMING_WARM",
    "FINAL",
    "LONGEST_COMPLAINT",
    "MOST_STACKS",
    "RUNS_JOB",
    "fail_prewarm",
    "is_repeated",
    "note_cleaning_up",
    "note_end",
    "problem",
    "take_evidence",
]

MOST_STACKS = 64 * 1024
"""Limit of characters in the stacks that a process reports itself."""
LONGEST_COMPLAINT = 1000
"""Limit of characters in a complaint. A breach of the protocol can quote 1 MiB, and 1,000 reports are kept."""

FINAL = frozenset((S.UNFIT, S.DOOMED, S.DUMPING, S.SIGNALLED, S.UNKILLED, S.DEAD, S.UNREPORTED))
"""States in which the end of the process is certain, and its messages are evidence."""
BECOMING_WARM = frozenset((S.REQUESTED, S.FORKED, S.WARMING))
"""States before a process is warm."""
RUNS_JOB = frozenset((S.RUNNING, S.ENDING, S.DRAINING, S.CLEANING, S.STOPPING, S.LEAVING))
"""States from the acknowledgement of a job until the process exits by itself."""


def fail_prewarm(pool: Pool, process: Process, failed: PrewarmFailed) -> None:
    process.error = failed.error
    process.decision = Decision("prewarm_failed", f"prewarm raised {failed.error}")


def note_end(pool: Pool, process: Process, ended: Ended) -> None:
    process.ended, process.error = ended, ended.error
    process.ended_wall = pool.wall


def note_cleaning_up(pool: Pool, process: Process, message: CleaningUp) -> None:
    if message.stacks is not None:
        process.stack_dump = clean(message.stacks)[:MOST_STACKS]
    process.cut = clean(cut_end(message.cut, LONGEST_COMPLAINT))


def take_evidence(pool: Pool, process: Process, message: Happening) -> None:
    """Note a message of a process whose end is certain. Only messages about its job have an effect."""
    if isinstance(message, Nonsense) or is_repeated(process, message):
        process.is_distrusted = True
    elif isinstance(message, PrewarmFailed):
        process.error = message.error
        if process.decision is None and process.state_at_end in BECOMING_WARM:
            fail_prewarm(pool, process, message)
    elif isinstance(message, CleaningUp):
        note_cleaning_up(pool, process, message)
    elif isinstance(message, (Started, Ending, Ended)):
        _take_evidence_of_job(pool, process, message)


def _take_evidence_of_job(pool: Pool, process: Process, message: Started | Ending | Ended) -> None:
    job = process.job
    if job is None or not process.start_was_sent or problem(pool, process, message) is not None:
        process.is_distrusted = True
        return
    if isinstance(message, Started):
        accounts.note_success(pool, process.generation)
        step(pool, job, JobEvent.STARTED, process)
        if process.decision is None and process.state_at_end is S.CLAIMED:
            process.state_at_end = S.RUNNING  # it died after the start, which is read only now
    elif job.state in (JobState.STARTING, JobState.RECALLED):
        process.is_distrusted = True  # the acknowledgement is missing, and the job must not run twice
    elif isinstance(message, Ended):
        note_end(pool, process, message)


def is_repeated(process: Process, message: Happening) -> bool:
    """Return true if a process repeats a kind of message.

    A table checks the order of messages before the end is certain. After that, only this check stops a flood.
    """
    kind = type(message)
    if kind is Answered or kind not in process.heard:
        process.heard.add(kind)
        return False
    return True


def problem(pool: Pool, process: Process, message: Message) -> str | None:
    """Return a sentence about a message that breaks the protocol; ``None`` for a proper message.

    This does not check the order of messages. The table in :mod:`.process` does.
    """
    job = process.job
    if isinstance(message, Started) and job is not None and message.job_id != job.id:
        return f"it acknowledged job {message.job_id!r}, which is not its job"
    if isinstance(message, Hello) and message.facts is not None and process.launcher.is_parent:
        return "it reported facts about the app; only its zygote may do so"
    if isinstance(message, Ended) and message.how not in ("completed", "raised", "exited", "cancelled"):
        return f"a job cannot end by {message.how!r}"
    if isinstance(message, Answered) and process.state not in (S.RESIDENT, S.RETIRING):
        return f"it answered question {message.number}, which was not sent to it"
    return None
