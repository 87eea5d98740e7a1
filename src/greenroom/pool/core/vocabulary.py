"""Events that the core takes in (:data:`Happening`), and effects that the shell performs (:data:`Effect`).

Both are plain data. A process is named by its id; a launcher, and the request of a caller, by a number. An event is a
request of a caller or a report. An effect is an instruction to the shell, or a notice for callers and observers.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal, NamedTuple

from ...app_facts import AppFacts
from ...errors import AppLoadError, ErrorInfo, GreenroomError
from ...exit_report import ExitReport
from ...job_labels import Labels
from ...options import PoolOptions
from ..events import Event
from .exit_verdict import ExitStatus
from .frozen import plain
from .stalls import DumpTime, Sample, Stall

# --- from callers --------------------------------------------------------------------------------


@plain
class Open:
    """Request to load the app, and to serve from it."""


@plain
class Launch:
    """Request to start a job within ``timeout`` seconds."""

    number: int
    job_id: str
    metadata: bytes
    timeout: float
    source: str = ""
    labels: Labels = field(default_factory=dict)


@plain
class Reserve:
    """Request to reserve a process for an offered job, within ``timeout`` seconds. With 0, do not wait."""

    number: int
    job_id: str
    metadata: bytes
    timeout: float
    source: str = ""
    labels: Labels = field(default_factory=dict)
    takes_promise: bool = False
    """Grant a place in the queue at once, if a process is certain to be idle within ``timeout`` seconds."""


@plain
class LaunchReserved:
    """Request to start the job of a reservation. Unless ``None``, ``metadata`` replaces the reservation's metadata."""

    number: int
    job_id: str
    metadata: bytes | None
    timeout: float


@plain
class AskApp:
    """Request to ask the app's request hook about the job of a reservation."""

    number: int
    job_id: str


@plain
class AskResident:
    """Request of an integration to ask the resident process, which has ``timeout`` seconds for the answer."""

    number: int
    topic: str
    body: bytes
    timeout: float


@plain
class SetNews:
    """Request to send news to resident processes, until later news with this key. A body of ``None`` ends the news."""

    topic: str
    key: str
    body: bytes | None


@plain
class Release:
    """Request to release the process of a reservation."""

    number: int
    cause: str


@plain
class Cancel:
    """Request to end a job or a reservation in any state."""

    number: int
    reason: str
    unless_ending: bool = False
    """True if a job that has begun to end by itself is left alone."""


@plain
class Resize:
    """Request to hold these numbers of idle processes."""

    num_idle_processes: int
    max_idle_processes: int | None


@plain
class Reload:
    """Request to load the app anew, to prove it, and to serve from it."""

    number: int


@plain
class GiveUpReload:
    """Notice that the caller of a reload does not wait any more."""

    number: int


@plain
class Drain:
    """Request to take no more jobs, and to end the jobs that are left after ``timeout`` seconds."""

    timeout: float


@plain
class Close:
    """Request to end all jobs and processes. With ``kill``, kill all of them at once."""

    kill: bool = False


# --- from the clock ------------------------------------------------------------------------------


@plain
class Tick:
    """Report that a deadline has passed."""


@plain
class Awoke:
    """Report that the supervisor and its clock stood still. Wall time is now the clock plus ``offset`` seconds."""

    offset: float


# --- from launchers ------------------------------------------------------------------------------


@plain
class LauncherSpawned:
    """Report that the process of a launcher exists."""

    launcher: int
    pid: int | None


@plain
class LauncherBegan:
    """Report that the interpreter of a launcher runs, and will import the app next."""

    launcher: int


@plain
class LauncherLoaded:
    """Report that a launcher has loaded the app. ``facts`` is ``None`` if each process loads the app itself."""

    launcher: int
    facts: AppFacts | None
    digest: str
    """Digest of all code that the launcher has imported."""
    import_seconds: float = 0.0
    preload_seconds: float = 0.0
    anonymous_mb: float = 0.0
    """Memory of the launcher without a file. A fork copies its page tables."""
    huge_mb: float = 0.0
    """Part of it in huge pages."""
    arrange_seconds: float = 0.0
    """CPU time that the launcher took to move this part."""


@plain
class LauncherFailed:
    """Report that the app does not load. ``is_gone`` is true if the launcher has no process, or none any more."""

    launcher: int
    error: AppLoadError
    is_gone: bool = False


@plain
class LauncherDumped:
    """Report that an overdue launcher has written its stacks. ``stacks`` is empty if it could not."""

    launcher: int
    stacks: str


@plain
class LauncherBroke:
    """Report that a launcher has broken the protocol, or closed its channel."""

    launcher: int
    complaint: str


@plain
class LauncherLost:
    """Report that a launcher is dead, after all its messages. Its processes are now children of the supervisor."""

    launcher: int
    ending: str
    load_error: str = ""
    """Text of the error if the launcher was still loading the app."""


# --- from processes ------------------------------------------------------------------------------


@plain
class Forked:
    """Report that the launcher has forked the process."""

    process: str
    pid: int


@plain
class ForkFailed:
    """Report that the launcher could not fork the process."""

    process: str
    cause: str


@plain
class Sampled:
    """Sample of the launcher of an overdue fork; ``None`` if there is nothing to sample."""

    process: str
    sample: Sample | None


@plain
class Hello:
    """Message that the process runs. A spawned process also reports the facts of the app."""

    process: str
    facts: AppFacts | None = None


@plain
class Warm:
    """Message that ``prewarm`` has ended, and the process is warm."""

    process: str
    prewarm_seconds: float


@plain
class PrewarmFailed:
    """Message that ``prewarm`` has raised an error."""

    process: str
    error: ErrorInfo


@plain
class Answered:
    """Message with the answer to a question. ``reason`` is the cause of a rejection or of a missing answer."""

    process: str
    number: int
    accepted: bool
    reason: str = ""
    final: bool = False
    body: bytes = b""


@plain
class Started:
    """Message that the process has acknowledged the job."""

    process: str
    job_id: str


@plain
class Ending:
    """Message that the job has begun to end by itself."""

    process: str


@plain
class Ended:
    """Message that the entrypoint has ended. ``told`` is true if the job was asked to end before."""

    process: str
    how: str
    told: bool
    error: ErrorInfo | None = None
    result: bytes | None = None


@plain
class CleaningUp:
    """Message that the user's callbacks are over. ``overrun`` is true if they were cut off."""

    process: str
    overrun: bool = False
    cut: str = ""
    stacks: str | None = None


@plain
class Nonsense:
    """Report that the process has broken the protocol."""

    process: str
    complaint: str


@plain
class Waits:
    """Report that a large message of the process begins, or ceases, to wait for memory of the pool."""

    process: str
    waits: bool


@plain
class Stopped:
    """Report that a signal has stopped the process."""

    process: str
    signal: int


@plain
class Stalled:
    """Report that the event loop of the process has stood still for ``seconds``."""

    process: str
    stall: Stall
    seconds: float


@plain
class Overweight:
    """Report that the process uses more memory than ``memory_limit_mb``."""

    process: str
    memory_mb: float


@plain
class Overcrowded:
    """Report that the process, with its descendants, has exceeded ``process_limit`` or used up a shared limit."""

    process: str
    count: int
    shared_limit: int | None = None
    """Limit for all processes and threads that this process has used up, so that others cannot start any."""


@plain
class Measured:
    """Sample of the private memory of the process."""

    process: str
    private_mb: float


@plain
class Dumped:
    """Report that the process has written its stacks, or that its time for this is over."""

    process: str
    stacks: str


@plain
class Unfit:
    """Report that, according to the kernel, an idle process is dead, dying or stopped by a signal."""

    process: str
    is_stopped: bool = False


@plain
class Died:
    """Report that the process is dead. ``last_words`` are its messages that were not read before."""

    process: str
    last_words: tuple[Happening, ...] = ()


@plain
class Examined:
    """Report on the delay of the exit status of a dead process. ``is_traced`` is true if a debugger causes it."""

    process: str
    is_traced: bool


@plain
class Reaped:
    """Report that the process is reaped, with all processes that it had left behind."""

    process: str
    status: ExitStatus
    cpu_seconds: float | None = None
    peak_memory_mb: float | None = None
    descendants_killed: int = 0
    oom_killed: bool = False
    """True if the kernel killed the process for lack of memory."""
    limit_was_hit: bool = False
    """True if the process had reached the memory limit of its cgroup."""
    dropped: int = 0
    """Number of log lines of the process that were dropped."""
    crash_stacks: str | None = None
    """Stacks that the process wrote as its native code crashed."""


Message = Hello | Warm | PrewarmFailed | Answered | Started | Ending | Ended | CleaningUp | Nonsense
"""Messages of a process."""
OfProcess = (
    Message
    | Forked
    | ForkFailed
    | Sampled
    | Waits
    | Stopped
    | Stalled
    | Overweight
    | Overcrowded
    | Measured
    | Dumped
    | Unfit
    | Died
    | Examined
    | Reaped
)
OfLauncher = (
    LauncherSpawned | LauncherBegan | LauncherLoaded | LauncherFailed | LauncherDumped | LauncherBroke | LauncherLost
)
OfJob = Launch | Reserve | LaunchReserved | AskApp | Release | Cancel
OfCaller = OfJob | AskResident | SetNews | Open | Resize | Reload | GiveUpReload | Drain | Close
Happening = OfCaller | Tick | Awoke | OfLauncher | OfProcess

# --- effects on processes ------------------------------------------------------------------------


@plain
class Fork:
    """Instruction to have a launcher make a process."""

    process: str
    launcher: int


@plain
class SampleLauncher:
    """Instruction to sample the launcher of an overdue fork, and to report the sample for the process."""

    process: str
    launcher: int


@plain
class WatchMemory:
    """Instruction to watch the memory of the process by these options, and to set a kernel limit if possible."""

    process: str
    options: PoolOptions


@plain
class WatchStalls:
    """Instruction to watch the event loop of the process for stalls of ``timeout`` seconds."""

    process: str
    timeout: float


@plain
class Start:
    """Instruction to send the process its job, unless the process is found unfit."""

    process: str
    job_id: str
    metadata: bytes


@plain
class Ask:
    """Instruction to ask the resident process. For the request hook, ``body`` is the metadata of the job."""

    process: str
    number: int
    topic: str
    job_id: str
    source: str
    body: bytes


@plain
class WithdrawAsk:
    """Instruction to take a question back, since its answer is not awaited any more."""

    process: str
    number: int


class News(NamedTuple):
    """Piece of news. A body of ``None`` means that the news does not hold any more."""

    topic: str
    key: str
    body: bytes | None


@plain
class Inform:
    """Instruction to send news to the resident process, in order."""

    process: str
    news: tuple[News, ...]


@plain
class Retire:
    """Instruction to ask a process without a job to exit."""

    process: str


@plain
class Shutdown:
    """Instruction to ask the job to end."""

    process: str
    reason: str
    bounds_own_end: bool


@plain
class Dump:
    """Instruction to have the process write its stacks."""

    process: str
    time: DumpTime


@plain
class Kill:
    """Instruction to send SIGKILL to the process. A dump in progress ends with the stacks written so far."""

    process: str
    with_descendants: bool = False
    """True if SIGKILL also goes to its descendants, before they can start more processes."""


@plain
class CutLifeline:
    """Instruction to have the kernel kill a process that its launcher may have forked, or may still fork."""

    process: str


@plain
class Examine:
    """Instruction to find the cause that delays the exit status of a dead process."""

    process: str


@plain
class ReadStatus:
    """Instruction to reap a dead process whose launcher is lost, and to report its exit status."""

    process: str


@plain
class Forget:
    """Instruction to close all that was opened for the process. If it is still alive, it is reaped later."""

    process: str
    is_alive: bool = False


# --- effects on launchers ------------------------------------------------------------------------

Script = Literal["run", "renew", "keep"]


@plain
class StartLauncher:
    """Instruction to start a launcher, which loads the app."""

    launcher: int
    generation: int
    script: Script
    """Treatment of the app's script before the load: run it, run it anew, or keep it as it is."""


@plain
class DumpLauncher:
    """Instruction to have the launcher write its stacks."""

    launcher: int


@plain
class CloseLauncher:
    """Instruction to ask the launcher to exit."""

    launcher: int


@plain
class KillLauncher:
    """Instruction to send SIGKILL to the launcher."""

    launcher: int


@plain
class ForgetLauncher:
    """Instruction to close all that was opened for the launcher, and to treat it as lost."""

    launcher: int


# --- effects on callers and observers ------------------------------------------------------------


@plain
class Refused:
    """Notice that a request is rejected, among the effects of the request itself."""

    number: int
    error: GreenroomError


@plain
class Granted:
    """Notice that a process is reserved."""

    number: int


@plain
class AppAnswered:
    """Notice of the answer to a question, or of the cause without an answer."""

    number: int
    accepted: bool
    reason: str = ""
    final: bool = False
    body: bytes = b""
    was_lost: bool = False
    """True if the process that had the question has ended."""


@plain
class HasStarted:
    """Notice that the job has started."""

    number: int


@plain
class NotStarted:
    """Notice that the job will not start, or that the reservation has ended without a launch."""

    number: int
    error: GreenroomError


@plain
class Over:
    """Notice that the job has ended."""

    number: int
    report: ExitReport


@plain
class HasReloaded:
    """Notice that a reload has ended. With an ``error`` it has failed, and nothing has changed."""

    number: int
    error: GreenroomError | None = None


@plain
class Opened:
    """Notice that the app is loaded. With an ``error`` the app is not loaded."""

    error: GreenroomError | None = None


@plain
class Settled:
    """Notice that the idle target is reached, or that the pool does not wait for it any more."""


@plain
class Emptied:
    """Notice that the pool has neither a process nor a job."""


@plain
class Closed:
    """Notice that the pool has no launcher either, and is closed."""


INFO, WARNING, ERROR = 20, 30, 40
"""Levels of log lines, with the values of the module ``logging``."""


@plain
class Log:
    """Line for the log."""

    level: int
    text: str
    fields: dict[str, object] = field(default_factory=dict)


@plain
class Breach:
    """Notice that an event cannot happen in the state of its record, for example by a breach of the protocol."""

    who: str
    state: str
    event: str


OnProcess = (
    Fork
    | SampleLauncher
    | WatchMemory
    | WatchStalls
    | Start
    | Ask
    | WithdrawAsk
    | Inform
    | Retire
    | Shutdown
    | Dump
    | Kill
    | CutLifeline
    | Examine
    | ReadStatus
    | Forget
)
OnLauncher = StartLauncher | DumpLauncher | CloseLauncher | KillLauncher | ForgetLauncher
ToCaller = Refused | Granted | AppAnswered | HasStarted | NotStarted | Over | HasReloaded | Opened
Effect = OnProcess | OnLauncher | ToCaller | Settled | Emptied | Closed | Log | Breach | Event
"""Public events are effects as they are: see :mod:`greenroom.pool.events`."""
